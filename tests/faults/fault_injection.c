/* Faults of system calls, preloaded into a daemon. The test writes one number for each fault to
 * a shared file: an errno, or 0 for no fault. CLOCK is an offset in seconds. */

#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CLOCK, READ, WRITE, SYNC, LOG, COUNT };

static volatile int64_t no_faults[COUNT];
static volatile int64_t *faults = no_faults;

__attribute__((constructor)) static void map_faults(void)
{
    const char *path = getenv("FAULTS");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, COUNT * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (shared != MAP_FAILED)
        faults = shared;
    close(fd);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define FAIL(which) \
    if (faults[which]) { \
        errno = (int)faults[which]; \
        return -1; \
    }

static int is_regular_file(int fd)
{
    struct stat status;
    return fd > 2 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        now->tv_sec += faults[CLOCK];
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec real;
    clock_gettime(CLOCK_REALTIME, &real);
    now->tv_sec = real.tv_sec;
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

ssize_t preadv64v2(int fd, const struct iovec *to, int count, off64_t offset, int flags)
{
    REAL(preadv64v2);
    FAIL(READ)
    return real(fd, to, count, offset, flags);
}

ssize_t preadv64(int fd, const struct iovec *to, int count, off64_t offset)
{
    REAL(preadv64);
    FAIL(READ)
    return real(fd, to, count, offset);
}

ssize_t write(int fd, const void *from, size_t count)
{
    REAL(write);
    if (fd == 1)
        FAIL(LOG)
    if (faults[WRITE] && is_regular_file(fd))
        FAIL(WRITE)
    return real(fd, from, count);
}

int fsync(int fd)
{
    REAL(fsync);
    FAIL(SYNC)
    return real(fd);
}

/*
 * Simulates machines that boot: each reads the same files, one after the other.
 * bench/machines.py compiles and starts it.
 *
 *     machines HOST PORT SOURCE NUMBER{8} NAME CONTENT [NAME CONTENT]...
 *
 * CONTENT is the file that NAME must be equal to, or - if the server must refuse NAME. A % in NAME is
 * replaced by the number of the machine. Machine 0 has the address SOURCE, machine 1 the next one.
 * Each file is requested from a port of its own. Lines of the output: `at SECONDS RUNNING ENDED BYTES`
 * twice a second, and for each machine `ok SECONDS` or `failed REASON`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RRQ = 1, DATA = 3, ACK, ERROR, OACK };
enum { MAX_EVENTS = 256, TICK_MS = 20, RECEIVE_BUFFER_BYTES = 1 << 20, MAX_STEPS = 64 };
enum { MACHINES, AT_ONCE, PER_SECOND, BLKSIZE, WINDOWSIZE, TIMEOUT, RETRIES, LIMIT, N_NUMBERS };

typedef struct {
    const char *name;
    const unsigned char *content; /* NULL: the server must refuse it */
    size_t size;
} file;

typedef struct {
    int fd; /* -1: no machine */
    long number, confirmed, in_window;
    int step, retries;
    bool is_answered, has_repeated;
    double started, idle_since;
    size_t request_bytes;
    char request[256];
} machine;

static double number[N_NUMBERS];
static struct sockaddr_in server, source;
static file files[MAX_STEPS];
static int n_files, epoll_fd;
static long n_started, n_ended, n_bytes;
static size_t blksize;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void end_machine(machine *m, const char *reason)
{
    if (reason == NULL)
        printf("ok %.6f\n", now() - m->started);
    else
        printf("failed %s, file %d, block %ld\n", reason, m->step, m->confirmed);
    n_ended++;
    close(m->fd);
    m->fd = -1;
}

static void request_file(machine *m)
{
    const char *name = files[m->step].name, *mark = strchr(name, '%');
    int one = 1, buffer_bytes = RECEIVE_BUFFER_BYTES, length = 2;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = m};
    struct sockaddr_in own = source;
    own.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + (uint32_t)m->number);
    m->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    setsockopt(m->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
    setsockopt(m->fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    if (bind(m->fd, (struct sockaddr *)&own, sizeof own) < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, m->fd, &event) < 0)
        err(2, "socket of machine %ld", m->number);
    m->request[0] = 0;
    m->request[1] = RRQ;
    if (mark == NULL)
        length += sprintf(m->request + length, "%s", name) + 1;
    else
        length += sprintf(m->request + length, "%.*s%ld%s", (int)(mark - name), name, m->number, mark + 1) + 1;
    length += sprintf(m->request + length, "octet%cblksize%c%zu%cwindowsize%c%d%ctsize%c0", 0, 0, blksize, 0, 0,
                      (int)number[WINDOWSIZE], 0, 0) + 1;
    m->request_bytes = (size_t)length;
    m->confirmed = m->in_window = m->retries = 0;
    m->is_answered = m->has_repeated = false;
    m->idle_since = now();
    sendto(m->fd, m->request, m->request_bytes, 0, (struct sockaddr *)&server, sizeof server);
}

static void next_file(machine *m)
{
    if (++m->step == n_files) {
        end_machine(m, NULL);
        return;
    }
    close(m->fd);
    request_file(m);
}

static void acknowledge(machine *m)
{
    unsigned char packet[4] = {0, ACK, (unsigned char)(m->confirmed >> 8), (unsigned char)m->confirmed};
    m->in_window = 0;
    sendto(m->fd, packet, sizeof packet, 0, (struct sockaddr *)&server, sizeof server);
}

/* Handle a DATA; return false if the machine no longer reads this file. */
static bool on_data(machine *m, const unsigned char *packet, size_t bytes)
{
    const file *f = &files[m->step];
    size_t at = (size_t)m->confirmed * blksize, length = bytes - 4;
    if ((packet[2] << 8 | packet[3]) != ((m->confirmed + 1) & 0xffff)) {
        if (!m->has_repeated)
            acknowledge(m);
        m->has_repeated = true;
        return true;
    }
    if (f->content == NULL || at + length > f->size || memcmp(f->content + at, packet + 4, length) != 0) {
        end_machine(m, "a block differs from the file");
        return false;
    }
    m->confirmed++;
    m->in_window++;
    m->retries = 0;
    m->has_repeated = false;
    n_bytes += (long)length;
    if (length == blksize && m->in_window < (long)number[WINDOWSIZE])
        return true;
    acknowledge(m);
    if (length == blksize)
        return true;
    if (at + length == f->size)
        next_file(m);
    else
        end_machine(m, "the file ends early");
    return false;
}

static void on_readable(machine *m)
{
    static unsigned char buffer[65536];
    for (int count = 0, fd = m->fd; count < 16; count++) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 4) /* empty, or an ICMP error, which firmware ignores */
            return;
        m->idle_since = now();
        m->is_answered = true;
        if (buffer[1] == ERROR) {
            buffer[n - 1] = 0;
            if (files[m->step].content == NULL && m->confirmed == 0)
                next_file(m);
            else
                end_machine(m, (char *)buffer + 4);
            return;
        }
        if (buffer[1] == OACK && m->confirmed == 0)
            acknowledge(m);
        /* UDP_GRO joins datagrams of one size; only the last one may be shorter. */
        for (size_t at = 0, rest; buffer[1] == DATA && at + 4 <= (size_t)n; at += blksize + 4) {
            rest = (size_t)n - at;
            if (!on_data(m, buffer + at, rest < blksize + 4 ? rest : blksize + 4))
                return;
        }
    }
}

static void on_tick(machine *m)
{
    if (m->fd < 0 || now() - m->idle_since < number[TIMEOUT])
        return;
    m->idle_since = now();
    if (++m->retries > (int)number[RETRIES])
        end_machine(m, "no answer");
    else if (m->is_answered)
        acknowledge(m);
    else
        sendto(m->fd, m->request, m->request_bytes, 0, (struct sockaddr *)&server, sizeof server);
}

static void read_content(file *f, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) < 0)
        err(2, "%s", path);
    f->size = (size_t)status.st_size;
    f->content = mmap(NULL, f->size + 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 6 + N_NUMBERS)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    source.sin_family = AF_INET;
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || inet_pton(AF_INET, argv[3], &source.sin_addr) != 1)
        return 2;
    for (int i = 0; i < N_NUMBERS; i++)
        number[i] = strtod(argv[4 + i], NULL);
    for (char **field = argv + 4 + N_NUMBERS; field[0] != NULL && n_files < MAX_STEPS; field += 2, n_files++) {
        files[n_files].name = field[0];
        if (strcmp(field[1], "-") != 0)
            read_content(&files[n_files], field[1]);
    }
    blksize = (size_t)number[BLKSIZE];
    epoll_fd = epoll_create1(0);
    machine *machines = calloc((size_t)number[AT_ONCE], sizeof *machines), *end = machines + (long)number[AT_ONCE];
    for (machine *m = machines; m < end; m++)
        m->fd = -1;
    double began = now(), next_tick = 0, next_line = 0;
    struct epoll_event events[MAX_EVENTS];
    while (n_ended < (long)number[MACHINES] && now() - began < number[LIMIT]) {
        /* An ended machine is replaced here, when no pending event can mean the old one. */
        for (machine *m = machines; m < end && n_started < (long)number[MACHINES]; m++) {
            if (m->fd >= 0)
                continue;
            if (number[PER_SECOND] > 0 && (double)n_started > (now() - began) * number[PER_SECOND])
                break;
            memset(m, 0, sizeof *m);
            m->number = n_started++;
            m->started = now();
            request_file(m);
        }
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, number[PER_SECOND] > 0 ? 1 : TICK_MS);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
        double time = now() - began;
        if (time >= next_tick) {
            next_tick = time + TICK_MS / 1000.0;
            for (machine *m = machines; m < end; m++)
                on_tick(m);
        }
        if (time >= next_line) {
            next_line = time + 0.5;
            printf("at %.3f %ld %ld %ld\n", time, n_started - n_ended, n_ended, n_bytes);
            fflush(stdout);
        }
    }
    double seconds = now() - began;
    for (machine *m = machines; m < end; m++)
        if (m->fd >= 0)
            end_machine(m, "out of time");
    printf("at %.3f %ld %ld %ld\n", seconds, n_started - n_ended, n_ended, n_bytes);
    return 0;
}

/*
 * Load generator: TFTP clients in one event loop. bench/generator.py compiles and starts it.
 *
 *     generator HOST PORT REFERENCE NUMBER{11} NAME MODE tsize SIZE [OPTION VALUE]...
 *
 * It runs a number of clients at the same time until all transfers have ended, and compares every
 * byte with the file REFERENCE. The server has to grant each OPTION as requested. Uploads are
 * called NAME.N. Each ended transfer is a line: `ok SECONDS`, `failed REASON`, or `rejected OPTION`.
 * The last line is `total BYTES SECONDS CPU_SECONDS`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RRQ = 1, WRQ, DATA, ACK, ERROR, OACK };
enum { MAX_EVENTS = 256, MAX_DATAGRAMS_PER_EVENT = 64, TICK_MS = 50, RECEIVE_BUFFER_BYTES = 4 << 20 };
enum { CLIENTS_PER_ADDRESS_BYTE = 250, MAX_REQUEST_BYTES = 512, TEXT_BYTES = 128, FIRST_OPTION = 4 };

/* The numbers of the command line, in the units of `Job` in clients.py. */
enum {
    BLKSIZE, WINDOWSIZE, CLIENTS, TRANSFERS, UPLOAD, WITH_GRO, SPREAD, DELAY, TIMEOUT, RETRIES, LIMIT,
    N_OPTIONS
};
static double option[N_OPTIONS];

typedef struct {
    int fd;             /* -1: no transfer */
    bool is_answered;   /* the server has sent a datagram, and the socket is connected to it */
    bool has_repeated;  /* the last ACK or window was repeated since the last progress */
    int retries;
    long in_window;     /* received blocks since the last ACK */
    long confirmed;     /* blocks that were received in order, or acknowledged by the server */
    long sent;          /* blocks of an upload that were sent */
    double started, idle_since;
    size_t request_bytes;
    char request[MAX_REQUEST_BYTES];
} client;

static struct sockaddr_in server;
static char **fields; /* of a request: the file name and the arguments that follow it */
static const unsigned char *content;
static size_t content_bytes, blksize;
static long windowsize, n_started, n_ended, size;
static bool upload, is_rejected;
static client *clients, *end;
static int epoll_fd;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void end_transfer(client *c, const char *outcome, const char *reason)
{
    if (reason == NULL)
        printf("ok %.6f\n", now() - c->started);
    else
        printf("%s %s\n", outcome, reason);
    n_ended++;
    close(c->fd); /* which also removes it from the epoll set */
    c->fd = -1;
}

static void send_request(client *c)
{
    sendto(c->fd, c->request, c->request_bytes, 0, (struct sockaddr *)&server, sizeof server);
}

static void start_transfer(client *c)
{
    int buffer_bytes = RECEIVE_BUFFER_BYTES, one = 1;
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (setsockopt(c->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes) < 0)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    if (option[WITH_GRO])
        setsockopt(c->fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    if (option[SPREAD]) { /* client 0 is 127.0.1.1, client 250 is 127.0.2.1 */
        unsigned number = (unsigned)(c - clients), step = CLIENTS_PER_ADDRESS_BYTE;
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(0x7f000101u + number / step * 256 + number % step);
        bind(c->fd, (struct sockaddr *)&source, sizeof source);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        err(2, "socket");
    c->request[1] = upload ? WRQ : RRQ;
    c->request_bytes = 2;
    for (int i = 0; fields[i] != NULL; i++)
        c->request_bytes += 1 + (size_t)sprintf(c->request + c->request_bytes,
                                                i == 0 && upload ? "%s.%ld" : "%s", fields[i], n_started);
    n_started++;
    c->started = c->idle_since = now();
    send_request(c);
}

static void acknowledge(client *c)
{
    unsigned char packet[4] = {0, ACK, (unsigned char)(c->confirmed >> 8), (unsigned char)c->confirmed};
    c->in_window = 0;
    send(c->fd, packet, sizeof packet, 0);
}

/* Send the window that follows the last ACK of the server. */
static void send_window(client *c)
{
    long blocks = (long)(content_bytes / blksize) + 1;
    long last = c->confirmed + windowsize < blocks ? c->confirmed + windowsize : blocks;
    for (c->sent = c->confirmed; c->sent < last; c->sent++) {
        size_t at = (size_t)c->sent * blksize, rest = content_bytes - at;
        long number = c->sent + 1;
        unsigned char header[4] = {0, DATA, (unsigned char)(number >> 8), (unsigned char)number};
        struct iovec parts[2] = {{header, 4}, {(void *)(content + at), rest < blksize ? rest : blksize}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        sendmsg(c->fd, &message, 0);
    }
}

static void make_progress(client *c, long blocks)
{
    c->confirmed += blocks;
    c->retries = 0;
    c->has_repeated = false;
    c->idle_since = now();
}

static void on_data(client *c, const unsigned char *packet, size_t bytes)
{
    uint16_t ahead = (uint16_t)(packet[2] << 8 | packet[3]) - (uint16_t)(c->confirmed + 1);
    size_t at = (size_t)c->confirmed * blksize, length = bytes - 4;
    if (ahead != 0) {
        /* The last acknowledged block again means that the ACK was lost; a later one, a DATA. */
        bool ack_lost = ahead == 0xffff && c->in_window == 0;
        if (!ack_lost && (ahead >= 0x8000 || c->has_repeated))
            return;
        c->has_repeated = !ack_lost;
        acknowledge(c);
        return;
    }
    if (at + length > content_bytes || memcmp(content + at, packet + 4, length) != 0) {
        end_transfer(c, "failed", "a block differs from the file");
        return;
    }
    size += (long)length;
    c->in_window++;
    make_progress(c, 1);
    bool is_last = length < blksize;
    if (is_last || c->in_window == windowsize) {
        if (option[DELAY] > 0 && !is_last) { /* the round-trip time of a network; for one client */
            struct timespec wait = {0, (long)(option[DELAY] * 1e9)};
            nanosleep(&wait, NULL);
        }
        acknowledge(c);
    }
    if (is_last)
        end_transfer(c, "failed", at + length == content_bytes ? NULL : "the file ends early");
}

static void on_ack(client *c, uint16_t number)
{
    uint16_t count = number - (uint16_t)c->confirmed;
    if (count == 0) {
        /* Without windows RFC 1123 section 4.2.3.1 forbids to answer a repeated ACK. */
        if (c->sent == 0 || (windowsize > 1 && !c->has_repeated)) {
            c->has_repeated = c->sent != 0;
            send_window(c);
        }
    } else if (count <= c->sent - c->confirmed) {
        make_progress(c, count);
        if (c->confirmed <= (long)(content_bytes / blksize)) {
            send_window(c);
            return;
        }
        size += (long)content_bytes;
        end_transfer(c, "ok", NULL);
    }
}

/* Return the first option of the request that an OACK does not grant as requested, or NULL. */
static const char *find_refused(const unsigned char *packet, size_t bytes)
{
    char text[TEXT_BYTES];
    for (int i = FIRST_OPTION; fields[i] != NULL; i += 2) {
        int length = snprintf(text, sizeof text, "%s%c%s", fields[i], 0, fields[i + 1]) + 1;
        if (packet[1] != OACK || memmem(packet, bytes, text, (size_t)length) == NULL)
            return fields[i];
    }
    return NULL;
}

static void on_packet(client *c, const unsigned char *packet, size_t bytes)
{
    static const char error[] = "\0\5\0\10without the option it is another scenario";
    const char *refused = c->is_answered || packet[1] == ERROR ? NULL : find_refused(packet, bytes);
    c->is_answered = true;
    if (refused != NULL) {
        is_rejected = true;
        send(c->fd, error, sizeof error, 0);
        end_transfer(c, "rejected", refused);
    } else if (packet[1] == ERROR) {
        end_transfer(c, "failed ERROR", (const char *)packet + 4);
    } else if (packet[1] == OACK && c->confirmed == 0) {
        upload ? on_ack(c, 0) : acknowledge(c);
    } else if (packet[1] == DATA && !upload) {
        on_data(c, packet, bytes);
    } else if (packet[1] == ACK && upload) {
        on_ack(c, (uint16_t)(packet[2] << 8 | packet[3]));
    }
}

static void on_readable(client *c)
{
    static unsigned char buffer[1 << 16];
    for (int i = 0; c->fd >= 0 && i < windowsize && i < MAX_DATAGRAMS_PER_EVENT; i++) {
        struct sockaddr_in source;
        struct iovec part = {buffer, sizeof buffer - 1}; /* a NUL ends the text of an ERROR */
        union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
        struct msghdr message = {
            .msg_name = &source, .msg_namelen = sizeof source, .msg_iov = &part, .msg_iovlen = 1,
            .msg_control = &control, .msg_controllen = sizeof control,
        };
        int bytes = (int)recvmsg(c->fd, &message, 0), segment = bytes;
        if (bytes < 0) {
            if (errno != EAGAIN && errno != EINTR)
                end_transfer(c, "failed", strerror(errno));
            return;
        }
        if (!c->is_answered)
            connect(c->fd, (struct sockaddr *)&source, sizeof source);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header != NULL && header->cmsg_level == SOL_UDP && header->cmsg_type == UDP_GRO)
            memcpy(&segment, CMSG_DATA(header), sizeof segment);
        buffer[bytes] = 0;
        for (int at = 0; at + 4 <= bytes && c->fd >= 0; at += segment)
            on_packet(c, buffer + at, (size_t)(bytes - at < segment ? bytes - at : segment));
    }
}

/* Repeat the last packet after a timeout; give up after `retries` repeats without progress. */
static void on_tick(client *c)
{
    if (c->fd < 0 || now() - c->idle_since < option[TIMEOUT])
        return;
    c->idle_since = now();
    if (++c->retries > option[RETRIES]) {
        end_transfer(c, "failed", "no answer");
    } else if (!c->is_answered) {
        send_request(c);
    } else if (upload) {
        send_window(c);
    } else {
        c->has_repeated = false;
        acknowledge(c);
    }
}

static void run(void)
{
    struct epoll_event events[MAX_EVENTS];
    double deadline = now() + option[LIMIT], next_tick = 0;
    for (;;) {
        /* An ended transfer is replaced here, when no pending event can mean the old one. */
        bool is_complete = n_started == (long)option[TRANSFERS] || is_rejected;
        if (!is_complete && n_started - n_ended < end - clients)
            for (client *c = clients; c < end && n_started < (long)option[TRANSFERS]; c++)
                if (c->fd < 0)
                    start_transfer(c);
        if (n_ended == n_started || now() > deadline)
            return;
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, TICK_MS);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
        if (now() < next_tick)
            continue;
        next_tick = now() + TICK_MS / 1000.0;
        for (client *c = clients; c < end; c++)
            on_tick(c);
    }
}

int main(int argc, char **argv)
{
    struct stat status;
    if (argc < 5 + N_OPTIONS)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    int fd = open(argv[3], O_RDONLY);
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || fd < 0 || fstat(fd, &status) < 0)
        return 2;
    for (int i = 0; i < N_OPTIONS; i++)
        option[i] = strtod(argv[4 + i], NULL);
    fields = argv + 4 + N_OPTIONS;
    content_bytes = (size_t)status.st_size;
    content = mmap(NULL, content_bytes + 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    blksize = (size_t)option[BLKSIZE];
    windowsize = (long)option[WINDOWSIZE];
    upload = option[UPLOAD] != 0;
    clients = calloc((size_t)option[CLIENTS], sizeof *clients);
    end = clients + (long)option[CLIENTS];
    epoll_fd = epoll_create1(0);
    prctl(PR_SET_TIMERSLACK, 1UL); /* for the delay; the default is 50 us */
    for (client *c = clients; c < end; c++)
        c->fd = -1;
    double began = now();
    run();
    double seconds = now() - began, cpu = (double)clock() / CLOCKS_PER_SEC;
    for (client *c = clients; c < end; c++)
        if (c->fd >= 0)
            end_transfer(c, "failed", "out of time");
    printf("total %ld %.6f %.6f\n", size, seconds, cpu);
    return 0;
}

/* The data plane in C. reference.py has the same interface and describes it.
 *
 * Each loan is one transfer: a connected socket, a buffer, and the position in it. turn() waits
 * with epoll, answers the datagrams that it expects, and returns everything else to Python. It
 * touches no Python object meanwhile, so that it needs no GIL. Only one thread may use a plane. */

#define Py_LIMITED_API 0x030B0000 /* Python 3.11 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/param.h>
#include <sys/socket.h>
#include <time.h>

enum {
    HEADER_BYTES = 4,
    MAX_DATAGRAM_BYTES = 65536, /* longer than any UDP payload, and than a coalesced burst */
    MAX_EVENTS = 256,           /* sockets that are served in one round */
    MAX_READS = 64,             /* of one socket in one round */
    MAX_BLOCK_NUMBER = 65535,
    MAX_BURST_BYTES = 65507,    /* payload of the longest IPv4 datagram */
    MAX_BURST_DATAGRAMS = 64,   /* UDP_MAX_SEGMENTS before Linux 6.9 */
    DATA = 3, ACK = 4,          /* opcodes */
};

/* How a datagram, or a ready socket, was handled. */
typedef enum {
    SERVED,     /* it was expected, and is answered */
    USED_UP,    /* the same, and Python must fill or empty the buffer */
    UNEXPECTED, /* Python must handle it */
} Verdict;

typedef struct {
    int fd, is_receiver;
    unsigned slot_bytes;
    unsigned long long slots;  /* of the buffer: datagrams of a sender, blocks of a receiver */
    unsigned long long blocks; /* sender: last acknowledged one; receiver: in the buffer */
    unsigned long long ready;  /* sender: index of the last datagram in the ring */
    unsigned last_bytes;       /* sender: size of datagram `ready` if it ends the file, else 0 */
    unsigned windowsize;       /* blocks for each ACK */
    unsigned max_burst;        /* sender: datagrams in one system call; 1: no UDP_SEGMENT */
    unsigned unacknowledged;   /* receiver: received blocks without an ACK */
    unsigned number;           /* receiver: number of the last received block */
    double moved_at;           /* time of the last datagram that was served */
    double round_trip;         /* from an answer to the next datagram; negative: not measured */
    Py_buffer buffer;
} Loan;

/* A socket that needs Python. */
typedef struct {
    int fd;
    unsigned mask;       /* events of epoll */
    Verdict verdict;     /* SERVED: the socket is not lent, or has an error */
    unsigned char *data; /* of one or more unexpected datagrams; NULL: out of memory */
    size_t length;
    size_t segment; /* size of each datagram but the last */
} Event;

typedef struct {
    PyObject_HEAD
    int epoll;
    int in_turn, is_busy; /* is_busy: the last round has served a loan, and no loan has ended */
    int room;     /* length of `loans` */
    Loan **loans; /* by descriptor */
    Event events[MAX_EVENTS];
    unsigned char datagram[MAX_DATAGRAM_BYTES];
} DataPlane;

static double monotonic_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Senders: the ACK of the window in flight is answered with the next datagrams of the ring. */

static unsigned char *ring_datagram(const Loan *loan, unsigned long long index)
{
    return (unsigned char *)loan->buffer.buf + (index - 1) % loan->slots * loan->slot_bytes;
}

static int set_segment(int fd, int size) /* 0: each call of send(2) is one datagram */
{
    return setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
}

/* Sends datagrams of the ring. The session's timer sends lost ones again. */
static void send_datagrams(Loan *loan, unsigned long long first, unsigned long long last)
{
    unsigned long long count;
    size_t size;

    for (; first <= last; first += count) {
        count = MIN(last - first + 1, loan->slots - (first - 1) % loan->slots);
        count = MIN(count, loan->max_burst);
        size = count * loan->slot_bytes;
        if (first + count - 1 == loan->ready && loan->last_bytes)
            size -= loan->slot_bytes - loan->last_bytes;
        if (send(loan->fd, ring_datagram(loan, first), size, MSG_DONTWAIT) < 0 && count > 1 &&
            errno != EAGAIN && errno != ECONNREFUSED) {
            loan->max_burst = 1; /* the path MTU is smaller, or the card cannot do it */
            (void)set_segment(loan->fd, 0);
            count = 0;
        }
    }
}

static Verdict serve_ack(Loan *loan, const unsigned char *datagram, size_t length, double now)
{
    unsigned long long acked = MIN(loan->blocks + loan->windowsize, loan->ready);
    unsigned long long last = MIN(acked + loan->windowsize, loan->ready);

    if (length != HEADER_BYTES || datagram[0] != 0 || datagram[1] != ACK ||
        memcmp(datagram + 2, ring_datagram(loan, acked) + 2, 2) != 0 || last == acked ||
        (last < acked + loan->windowsize && !loan->last_bytes))
        return UNEXPECTED;
    send_datagrams(loan, acked + 1, last);
    loan->blocks = acked;
    loan->round_trip = now - loan->moved_at;
    loan->moved_at = now;
    return last + loan->windowsize > loan->ready && !loan->last_bytes ? USED_UP : SERVED;
}

/* Receivers: a full block with the next number is stored, and each window is acknowledged. */

static Verdict serve_data(Loan *loan, const unsigned char *datagram, size_t length, double now)
{
    unsigned number = loan->number + 1;
    unsigned char ack[HEADER_BYTES] = {0, ACK, (unsigned char)(number >> 8), (unsigned char)number};

    if (length != HEADER_BYTES + (size_t)loan->slot_bytes || datagram[0] != 0 ||
        datagram[1] != DATA || memcmp(datagram + 2, ack + 2, 2) != 0 ||
        number > MAX_BLOCK_NUMBER || loan->blocks == loan->slots)
        return UNEXPECTED;
    memcpy((unsigned char *)loan->buffer.buf + loan->blocks * loan->slot_bytes,
           datagram + HEADER_BYTES, loan->slot_bytes);
    if (loan->unacknowledged == 0)
        loan->round_trip = now - loan->moved_at;
    loan->moved_at = now;
    loan->blocks++;
    loan->number = number;
    if (++loan->unacknowledged == loan->windowsize) {
        (void)send(loan->fd, ack, sizeof ack, MSG_DONTWAIT);
        loan->unacknowledged = 0;
    }
    return loan->blocks == loan->slots ? USED_UP : SERVED;
}

/* Receives one datagram, or with UDP_GRO several, whose size is stored in *segment. Returns the
 * number of bytes; a negative number if there is nothing. */
static ssize_t receive(DataPlane *self, const Loan *loan, size_t *segment)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {self->datagram, sizeof self->datagram};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    struct cmsghdr *cmsg;
    ssize_t length;
    int size;

    if (loan->windowsize == 1 || !loan->is_receiver)
        return recv(loan->fd, self->datagram, sizeof self->datagram, MSG_DONTWAIT);
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    length = recvmsg(loan->fd, &message, MSG_DONTWAIT);
    cmsg = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (cmsg && cmsg->cmsg_level == IPPROTO_UDP && cmsg->cmsg_type == UDP_GRO) {
        memcpy(&size, CMSG_DATA(cmsg), sizeof size);
        if (size > 0)
            *segment = (size_t)size;
    }
    return length;
}

/* Gives a part of the received datagrams to Python. Without memory it is lost, as a datagram is. */
static Verdict hand_back(Event *event, const unsigned char *data, size_t length, size_t segment)
{
    event->data = malloc(length + 1);
    event->length = event->data ? length : 0;
    event->segment = segment;
    if (event->data)
        memcpy(event->data, data, length);
    return UNEXPECTED;
}

/* Serves a lent socket: in lock-step one datagram, of a window all that have arrived. */
static Verdict serve(DataPlane *self, Loan *loan, double now, Event *event)
{
    const unsigned char *begin, *end;
    Verdict verdict = SERVED;
    ssize_t length;
    size_t size, segment;
    int reads = 0;

    do {
        segment = sizeof self->datagram;
        length = receive(self, loan, &segment);
        if (length < 0)
            break;
        begin = self->datagram;
        end = begin + length;
        do { /* once for an empty datagram, too */
            size = (size_t)(end - begin) < segment ? (size_t)(end - begin) : segment;
            verdict = loan->is_receiver ? serve_data(loan, begin, size, now)
                                        : serve_ack(loan, begin, size, now);
            begin += verdict == UNEXPECTED ? 0 : size;
        } while (begin < end && verdict == SERVED);
        if (begin < end || verdict == UNEXPECTED) /* or the burst does not fit into the buffer */
            return hand_back(event, begin, (size_t)(end - begin), segment);
    } while (verdict == SERVED && loan->unacknowledged > 0 && ++reads < MAX_READS);
    return verdict;
}

static Loan *find_loan(const DataPlane *self, int fd)
{
    return fd >= 0 && fd < self->room ? self->loans[fd] : NULL;
}

/* Serves the ready sockets once. Returns the number of served sockets; *n_events is increased. */
static int serve_round(DataPlane *self, const struct epoll_event *ready, int n_ready, int *n_events)
{
    double now = monotonic_seconds();
    int served = 0;

    for (int i = 0; i < n_ready; i++) {
        Event *event = &self->events[*n_events];
        Loan *loan = ready[i].events & EPOLLERR ? NULL : find_loan(self, ready[i].data.fd);

        event->fd = ready[i].data.fd;
        event->mask = ready[i].events;
        event->data = NULL;
        event->verdict = loan ? serve(self, loan, now, event) : SERVED;
        served += loan != NULL;
        *n_events += !loan || event->verdict != SERVED;
    }
    return served;
}

static PyObject *list_datagrams(const Event *event)
{
    size_t begin = 0, size;
    PyObject *datagrams, *datagram;

    if (event->verdict == SERVED)
        return Py_NewRef(Py_None);
    datagrams = PyList_New(0);
    while (datagrams && event->data && (begin == 0 || begin < event->length)) {
        size = event->length - begin < event->segment ? event->length - begin : event->segment;
        datagram = PyBytes_FromStringAndSize((char *)event->data + begin, (Py_ssize_t)size);
        if (!datagram || PyList_Append(datagrams, datagram) < 0)
            Py_CLEAR(datagrams);
        Py_XDECREF(datagram);
        begin += event->segment;
    }
    return datagrams;
}

static PyObject *list_events(DataPlane *self, int n_events)
{
    PyObject *events = PyList_New(0), *event;

    for (int i = 0; i < n_events; i++) {
        if (events) {
            event = Py_BuildValue("iIN", self->events[i].fd, self->events[i].mask,
                                  list_datagrams(&self->events[i]));
            if (!event || PyList_Append(events, event) < 0)
                Py_CLEAR(events);
            Py_XDECREF(event);
        }
        free(self->events[i].data);
    }
    return events;
}

static int in_turn(const DataPlane *self)
{
    if (self->in_turn)
        PyErr_SetString(PyExc_RuntimeError, "the data plane is used by another thread");
    return self->in_turn;
}

static PyObject *turn(DataPlane *self, PyObject *args)
{
    struct epoll_event ready[MAX_EVENTS];
    int max_sockets, n_ready = 0, n_events = 0, n_served, served = 0;
    double until, linger;

    if (!PyArg_ParseTuple(args, "ddi", &until, &linger, &max_sockets) || in_turn(self))
        return NULL;
    max_sockets = max_sockets < 1 ? 1 : max_sockets < MAX_EVENTS ? max_sockets : MAX_EVENTS;
    self->in_turn = 1;
    Py_BEGIN_ALLOW_THREADS
    until += monotonic_seconds();
    do {
        n_ready = epoll_wait(self->epoll, ready, max_sockets, (int)(self->is_busy * 1e3 * linger));
        n_served = serve_round(self, ready, n_ready, &n_events);
        served += n_served;
        self->is_busy = n_served > 0;
    } while (n_ready > 0 && n_events == 0 && monotonic_seconds() < until);
    Py_END_ALLOW_THREADS
    self->in_turn = 0;
    return Py_BuildValue("NiN", list_events(self, n_events), served,
                         PyBool_FromLong(n_ready == max_sockets));
}

static int fits_buffer(const Loan *loan, unsigned long long ready, unsigned last_bytes)
{
    if (loan->slots > 0 && loan->windowsize > 0 && loan->number <= MAX_BLOCK_NUMBER &&
        (loan->is_receiver || (loan->slot_bytes >= HEADER_BYTES && last_bytes <= loan->slot_bytes &&
                               ready > loan->blocks && ready - loan->blocks <= loan->slots)))
        return 1;
    PyErr_SetString(PyExc_ValueError, "the position does not fit the buffer");
    return 0;
}

static void free_loan(Loan *loan)
{
    if (loan && loan->buffer.obj)
        PyBuffer_Release(&loan->buffer);
    PyMem_Free(loan);
}

/* Makes room in the table for a descriptor. */
static int reserve(DataPlane *self, int fd)
{
    int room = fd + fd / 2 + 64;
    Loan **loans;

    if (fd < 0 || fd > 1 << 30 || find_loan(self, fd)) {
        PyErr_Format(PyExc_ValueError, "descriptor %d is lent already, or invalid", fd);
        return -1;
    }
    if (fd < self->room)
        return 0;
    loans = PyMem_Realloc(self->loans, (size_t)room * sizeof *loans);
    if (!loans)
        return PyErr_NoMemory() ? 0 : -1;
    memset(loans + self->room, 0, (size_t)(room - self->room) * sizeof *loans);
    self->loans = loans;
    self->room = room;
    return 0;
}

static PyObject *lend(DataPlane *self, const Loan *given, PyObject *buffer)
{
    Loan *loan;

    if (in_turn(self) || reserve(self, given->fd) < 0)
        return NULL;
    loan = PyMem_Malloc(sizeof *loan);
    if (!loan)
        return PyErr_NoMemory();
    *loan = *given;
    loan->round_trip = -1;
    if (PyObject_GetBuffer(buffer, &loan->buffer, PyBUF_WRITABLE) == 0) {
        loan->slots = loan->slot_bytes ? (unsigned long long)loan->buffer.len / loan->slot_bytes : 0;
        if (fits_buffer(loan, loan->ready, loan->last_bytes)) {
            self->loans[loan->fd] = loan;
            Py_RETURN_NONE;
        }
    }
    free_loan(loan);
    return NULL;
}

static PyObject *lend_sender(DataPlane *self, PyObject *args)
{
    Loan loan = {.max_burst = 1};
    PyObject *ring, *lent;

    if (!PyArg_ParseTuple(args, "iOIIKKId", &loan.fd, &ring, &loan.slot_bytes, &loan.windowsize,
                          &loan.blocks, &loan.ready, &loan.last_bytes, &loan.moved_at))
        return NULL;
    lent = lend(self, &loan, ring);
    if (lent && loan.windowsize > 1 && loan.slot_bytes <= MAX_BURST_BYTES / 2 &&
        set_segment(loan.fd, (int)loan.slot_bytes) == 0)
        self->loans[loan.fd]->max_burst = MIN(MAX_BURST_BYTES / loan.slot_bytes, MAX_BURST_DATAGRAMS);
    return lent;
}

static PyObject *lend_receiver(DataPlane *self, PyObject *args)
{
    Loan loan = {.is_receiver = 1};
    PyObject *buffer;

    if (!PyArg_ParseTuple(args, "iOIIId", &loan.fd, &buffer, &loan.slot_bytes, &loan.windowsize,
                          &loan.number, &loan.moved_at))
        return NULL;
    return lend(self, &loan, buffer);
}

/* Returns the loan of a descriptor, or NULL with an exception. */
static Loan *require_loan(const DataPlane *self, int fd)
{
    Loan *loan = find_loan(self, fd);

    if (in_turn(self))
        return NULL;
    if (!loan)
        PyErr_Format(PyExc_KeyError, "descriptor %d is not lent", fd);
    return loan;
}

static PyObject *refill(DataPlane *self, PyObject *args)
{
    Loan given = {0}, *loan;

    if (!PyArg_ParseTuple(args, "i|KI", &given.fd, &given.ready, &given.last_bytes))
        return NULL;
    loan = require_loan(self, given.fd);
    if (!loan || !fits_buffer(loan, given.ready, given.last_bytes))
        return NULL;
    loan->ready = given.ready;
    loan->last_bytes = given.last_bytes;
    if (loan->is_receiver)
        loan->blocks = 0;
    Py_RETURN_NONE;
}

static PyObject *look(DataPlane *self, PyObject *fd)
{
    const Loan *at = require_loan(self, (int)PyLong_AsLong(fd));

    return at ? Py_BuildValue("KIdd", at->blocks, at->unacknowledged, at->moved_at, at->round_trip)
              : NULL;
}

static PyObject *reclaim(DataPlane *self, PyObject *fd)
{
    int number = (int)PyLong_AsLong(fd);
    PyObject *position = look(self, fd);

    if (position) {
        if (self->loans[number]->windowsize > 1) /* the session may send a longer ERROR */
            (void)set_segment(number, 0);
        free_loan(self->loans[number]);
        self->loans[number] = NULL;
        self->is_busy = 0;
    }
    return position;
}

static int initialize(DataPlane *self, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *epoll;

    self->epoll = PyArg_ParseTuple(args, "O", &epoll) ? PyObject_AsFileDescriptor(epoll) : -1;
    return self->epoll < 0 ? -1 : 0;
}

static void deallocate(DataPlane *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);

    while (self->room > 0)
        free_loan(self->loans[--self->room]);
    PyMem_Free(self->loans);
    free_object(self);
    Py_DECREF(type);
}

/* PyCFunction has no arguments of other types; the detour avoids a warning about the cast. */
#define METHOD(name, flags) {#name, (PyCFunction)(void (*)(void))(name), flags, NULL}

static PyMethodDef methods[] = {
    METHOD(turn, METH_VARARGS),
    METHOD(lend_sender, METH_VARARGS),
    METHOD(lend_receiver, METH_VARARGS),
    METHOD(refill, METH_VARARGS),
    METHOD(look, METH_O),
    METHOD(reclaim, METH_O),
    {NULL, NULL, 0, NULL},
};

#define NAME "tftpd.dataplane._native"

static PyType_Slot slots[] = {{Py_tp_init, (void *)initialize},
                              {Py_tp_dealloc, (void *)deallocate},
                              {Py_tp_methods, methods},
                              {0, NULL}};
static PyType_Spec spec = {NAME ".DataPlane", sizeof(DataPlane), 0, Py_TPFLAGS_DEFAULT, slots};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = NAME, .m_size = -1};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition), *type = PyType_FromSpec(&spec);

    if (!module || !type || PyModule_AddObjectRef(module, "DataPlane2", type) < 0)
        Py_CLEAR(module);
    Py_XDECREF(type);
    return module;
}

/* A model server that is never the bottleneck: OpenAI-compatible answers of fixed bytes, one thread, epoll.

   POST          a chat completion; with "stream":true, events that say when they were written (t<CLOCK_MONOTONIC in ns>)
   PUT /interval/N  microseconds between the events of streams that begin from now; 0, the beginning: no pause
   PUT /chunks/N    events in a stream; 64 in the beginning
   GET           /v1/models a list of one model, bench; anything else {} */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "answers.h"
#include "common.h"
#include "question.h"
#include "schedule.h"

struct connection {
    struct entry next_event; /* first: the schedule gives it back */
    int fd;
    enum { READING_HEAD, READING_BODY, ANSWERING } state;
    bool deaf;
    struct question question;
    struct bytes in, out; /* what cannot be read yet, what cannot be written yet */
    size_t written;       /* of out */
    uint64_t events_left, events, interval, delay; /* delay: once, after the first event */
};

static struct {
    int epoll, listener, timer, signals;
    uint64_t interval, chunks, armed; /* microseconds, events, ns */
    struct schedule schedule;
    struct answers answers;
} server = {.chunks = 64};

static char buffer[256 * 1024];

/* Asks epoll for what the connection waits for. It is deaf while it answers and there was something to read. */
static void listen_for(struct connection *c) {
    struct epoll_event event = {.data.ptr = c};
    event.events = EPOLLRDHUP | (c->deaf ? 0 : EPOLLIN) | (c->out.length > 0 ? EPOLLOUT : 0);
    if (epoll_ctl(server.epoll, EPOLL_CTL_MOD, c->fd, &event) < 0) die(1, "epoll_ctl: %m");
}

static void close_connection(struct connection *c) {
    schedule_remove(&server.schedule, &c->next_event);
    close(c->fd);
    bytes_free(&c->in);
    bytes_free(&c->out);
    free(c);
}

/* Writes what is left over first; false if the client is gone. */
static bool flush(struct connection *c) {
    while (c->written < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + c->written, c->out.length - c->written, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN;
        c->written += (size_t)n;
    }
    if (c->out.length == 0) return true;
    c->out.length = c->written = 0;
    listen_for(c);
    return true;
}

static bool write_bytes(struct connection *c, const char *data, size_t length) {
    ssize_t n = 0;
    if (c->out.length == 0) {
        n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return false;
        if ((size_t)(n < 0 ? 0 : n) == length) return true;
        if (n < 0) n = 0;
    }
    bool first = c->out.length == 0;
    bytes_add(&c->out, data + n, length - (size_t)n);
    if (first) listen_for(c);
    return true;
}

static bool write_answer(struct connection *c, const struct answer *answer) {
    return write_bytes(c, answer->data, answer->length);
}

static size_t copy(char *to, const struct answer *answer) {
    memcpy(to, answer->data, answer->length);
    return answer->length;
}

/* Writes the events that are due, with the head before the first and the end after the last. */
static bool write_events(struct connection *c) {
    static char events[64 * 1024];
    while (c->events_left > 0 && c->out.length == 0) {
        if (c->next_event.due > now_ns()) {
            schedule_add(&server.schedule, &c->next_event);
            return true;
        }
        size_t length = 0;
        if (c->events_left == c->events) length = copy(events, &server.answers.stream_head);
        do {
            length += write_event(events + length, c->events_left == c->events, c->events_left == 1);
            c->events_left--;
            c->next_event.due += c->interval + c->delay;
            c->delay = 0;
        } while (c->events_left > 0 && length < sizeof(events) - 2 * EVENT_SIZE &&
                 c->next_event.due <= now_ns());
        if (c->events_left == 0) length += copy(events + length, &server.answers.stream_end);
        if (!write_bytes(c, events, length)) return false;
    }
    return true;
}

/* Streams that begin at one moment are not to write in bursts ever after: each gets a phase of its own, by which its
   second event is late. Multiples of the golden ratio spread evenly, however many there are. */
static uint64_t phase(uint64_t interval) {
    static uint32_t turns;
    turns += 2654435769u; /* 2^32 / 1.618… */
    return (uint64_t)((double)interval * turns / 4294967296.0);
}

static bool begin_stream(struct connection *c) {
    c->events = c->events_left = server.chunks;
    c->interval = server.interval * 1000;
    c->next_event.due = now_ns();
    c->delay = phase(c->interval);
    return write_events(c);
}

static bool set(struct connection *c, const char *name, uint64_t least, uint64_t most, uint64_t *setting) {
    const char *value = c->question.path + strlen(name);
    if (!whole_number(value, strlen(value), least, most, setting)) return write_answer(c, &server.answers.bad_setting);
    return write_answer(c, &server.answers.empty);
}

static bool answer(struct connection *c) {
    c->state = ANSWERING;
    if (c->question.method == POST) return c->question.wants_stream ? begin_stream(c) : write_answer(c, &server.answers.completion);
    if (c->question.method == GET) {
        return write_answer(c, strcmp(c->question.path, "/v1/models") == 0 ? &server.answers.models : &server.answers.empty);
    }
    if (c->question.method == OTHER) return write_answer(c, &server.answers.not_allowed);
    if (strncmp(c->question.path, "/interval/", 10) == 0) return set(c, "/interval/", 0, 3600000000u, &server.interval);
    if (strncmp(c->question.path, "/chunks/", 8) == 0) return set(c, "/chunks/", 1, 1000000, &server.chunks);
    return write_answer(c, &server.answers.not_found);
}

static bool answered(const struct connection *c) {
    return c->events_left == 0 && c->out.length == 0;
}

static ssize_t refuse(struct connection *c) {
    write_answer(c, &server.answers.malformed);
    return -1;
}

static bool begin_request(struct connection *c, const char *head, size_t length) {
    if (!question_begin(&c->question, head, length)) return false;
    c->state = READING_BODY;
    return !c->question.expects_continue || write_answer(c, &server.answers.go_on);
}

/* Reads what came and answers; returns how much of it was taken, or -1 if the connection is to be closed. */
static ssize_t take(struct connection *c, const char *data, size_t length) {
    const char *at = data, *end = data + length;
    while (c->state != ANSWERING && (at < end || c->state == READING_BODY)) {
        if (c->state == READING_HEAD) {
            size_t head = head_length(at, (size_t)(end - at));
            if (head == 0 && end - at < MAX_HEAD) break;
            if (head == 0 || !begin_request(c, at, head)) return refuse(c);
            at += head;
        }
        enum body_step step = question_read(&c->question, &at, end);
        if (step == BODY_MORE) break;
        if (step == BODY_MALFORMED) return refuse(c);
        if (!answer(c)) return -1;
        if (!answered(c)) break;
        if (c->question.close) return -1;
        c->state = READING_HEAD;
    }
    return at - data;
}

/* Takes what was kept, now that the answer before it is whole. */
static bool take_kept(struct connection *c) {
    ssize_t taken = take(c, c->in.data, c->in.length);
    if (taken < 0) return false;
    bytes_drop(&c->in, (size_t)taken);
    return true;
}

static bool go_on(struct connection *c) {
    if (c->state != ANSWERING || !answered(c)) return true;
    if (c->question.close) return false;
    c->state = READING_HEAD;
    if (c->in.length > 0 && !take_kept(c)) return false;
    if (c->deaf && c->state != ANSWERING) {
        c->deaf = false;
        listen_for(c);
    }
    return true;
}

static bool readable(struct connection *c) {
    if (c->state == ANSWERING) {
        c->deaf = true;
        listen_for(c);
        return true;
    }
    ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    if (c->in.length > 0) {
        bytes_add(&c->in, buffer, (size_t)n);
        return take_kept(c);
    }
    ssize_t taken = take(c, buffer, (size_t)n);
    if (taken < 0) return false;
    bytes_add(&c->in, buffer + taken, (size_t)(n - taken));
    return true;
}

static bool writable(struct connection *c) {
    if (!flush(c)) return false;
    return (c->out.length > 0 || write_events(c)) && go_on(c);
}

static void handle(struct connection *c, uint32_t events) {
    bool alive = (events & (EPOLLERR | EPOLLHUP)) == 0;
    if (alive && (events & EPOLLOUT)) alive = writable(c);
    if (alive && (events & EPOLLIN) && !c->deaf) alive = readable(c);
    if (alive && (events & EPOLLRDHUP) && c->state == ANSWERING) alive = false;
    if (!alive) close_connection(c);
}

static void accept_all(void) {
    int fd, on = 1;
    while ((fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof(*c));
        if (c == NULL) die(1, "out of memory");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        if (epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &event) < 0) die(1, "epoll_ctl: %m");
    }
    if (errno == EMFILE || errno == ENFILE) die(1, "too many connections: raise the limit of open files (ulimit -n)");
}

static void write_due_events(void) {
    uint64_t now = now_ns();
    while (server.schedule.length > 0 && server.schedule.entries[1]->due <= now) {
        struct connection *c = (struct connection *)server.schedule.entries[1];
        schedule_remove(&server.schedule, &c->next_event);
        if (!write_events(c) || !go_on(c)) close_connection(c);
    }
}

static void watch(int fd, void *what, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (fd < 0 || epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &event) < 0) die(1, "epoll_ctl: %m");
}

static void serve(void) {
    struct epoll_event events[512];
    for (;;) {
        if (server.schedule.length > 0 && server.schedule.entries[1]->due != server.armed) {
            server.armed = server.schedule.entries[1]->due;
            arm_timer(server.timer, server.armed);
        }
        int n = epoll_wait(server.epoll, events, LENGTH(events), -1);
        if (n < 0 && errno != EINTR) die(1, "epoll_wait: %m");
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            if (what == &server.signals) return;
            if (what == &server.listener) accept_all();
            else if (what != &server.timer) handle(what, events[i].events);
        }
        write_due_events();
    }
}

static void open_listener(uint16_t port) {
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(server.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(server.listener, (struct sockaddr *)&address, size) < 0 || listen(server.listener, 4096) < 0) {
        die(1, "cannot listen on 127.0.0.1:%u: %m", port);
    }
    getsockname(server.listener, (struct sockaddr *)&address, &size);
    printf("listening on %u\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int count, char **arguments) {
    uint64_t port;
    if (count != 2 || !whole_number(arguments[1], strlen(arguments[1]), 0, 65535, &port)) {
        die(2, "usage: model_server PORT, a number from 0 (any free port) to 65535");
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    raise_file_limit();
    answers_make(&server.answers);
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    server.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    server.signals = signalfd(-1, &ends, SFD_CLOEXEC);
    watch(server.signals, &server.signals, EPOLLIN);
    watch(server.timer, &server.timer, EPOLLIN | EPOLLET);
    open_listener((uint16_t)port);
    watch(server.listener, &server.listener, EPOLLIN);
    serve();
    return 0;
}

#define _GNU_SOURCE
#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"
#include "reply.h"

#define TICK 100000000u /* ns; how often to look for what takes too long */

struct connection {
    /* Resting: its request failed, and the next waits for a tick, so that a dead server is not called in a circle */
    enum { IDLE, RESTING, CONNECTING, SENDING, WAITING } state;
    int fd; /* -1: closed; opened again for the next request */
    uint64_t numbers[NUMBERS], cycles;
    size_t file;
    uint64_t due;
    struct bytes out; /* what is not sent yet */
    size_t written;   /* of out */
    struct reply reply;
    struct connection *next; /* free connection */
};

static struct {
    const struct settings *settings;
    struct connection *connections, *first_free, *last_free;
    int epoll, timer;
    uint64_t now, start, stop, quota; /* requests to send, until then */
    uint64_t begun, in_flight, late, next_cycle, last_tick, armed;
    struct statistics *statistics;
} runner;

static char buffer[256 * 1024];

static void listen_for(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | events, .data.ptr = c};
    if (epoll_ctl(runner.epoll, operation, c->fd, &event) < 0) die(1, "epoll_ctl: %m");
}

static void disconnect(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

/* When the n-th request of an open loop is due. */
static uint64_t arrival(uint64_t n) {
    return runner.start + (uint64_t)((double)n * 1e9 / runner.settings->rate);
}

/* Counts the requests that are due while no connection is free. */
static void count_late(void) {
    if (runner.late < runner.begun) runner.late = runner.begun;
    for (; runner.late < runner.quota && arrival(runner.late) <= runner.now; runner.late++) runner.statistics->behind++;
}

/* Gives the connection back to the open loop, after the others: all are used in turn. */
static void set_free(struct connection *c) {
    if (runner.first_free == NULL) {
        count_late();
        runner.first_free = c;
    } else {
        runner.last_free->next = c;
    }
    runner.last_free = c;
    c->next = NULL;
}

static void end_request(struct connection *c, int state) {
    c->state = state;
    runner.in_flight--;
    if (runner.settings->rate > 0) set_free(c);
}

static void fail(struct connection *c) {
    runner.statistics->errors++;
    if (reply_lost(&c->reply)) runner.statistics->lost++;
    disconnect(c);
    end_request(c, runner.settings->rate > 0 ? IDLE : RESTING);
}

static void flush(struct connection *c) {
    while (c->written < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + c->written, c->out.length - c->written, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) {
            fail(c);
            return;
        }
        c->written += (size_t)n;
    }
    c->state = WAITING;
    c->out.length = c->written = 0;
    listen_for(c, EPOLL_CTL_MOD, 0);
}

static void send_request(struct connection *c) {
    struct request *request = &runner.settings->files[c->file];
    request_fill(request, c->numbers);
    ssize_t n = send(c->fd, request->data, request->length, MSG_NOSIGNAL);
    if (n == (ssize_t)request->length) {
        c->state = WAITING;
    } else if (n < 0 && errno != EAGAIN) {
        fail(c);
    } else {
        size_t sent = n < 0 ? 0 : (size_t)n;
        c->state = SENDING;
        c->out.length = c->written = 0;
        bytes_add(&c->out, request->data + sent, request->length - sent);
        listen_for(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
}

static bool open_socket(struct connection *c, int flags) {
    int on = 1;
    c->fd = socket(runner.settings->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (c->fd < 0) return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return true;
}

static int call(const struct connection *c) {
    return connect(c->fd, (const struct sockaddr *)&runner.settings->address, runner.settings->address_size);
}

static void reconnect(struct connection *c) {
    if (!open_socket(c, SOCK_NONBLOCK) || (call(c) < 0 && errno != EINPROGRESS)) {
        fail(c);
        return;
    }
    c->state = CONNECTING;
    listen_for(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void connected(struct connection *c) {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error != 0) {
        fail(c);
        return;
    }
    listen_for(c, EPOLL_CTL_MOD, 0);
    send_request(c);
}

static void choose_request(struct connection *c) {
    if (++c->file < runner.settings->file_count) return;
    c->file = 0;
    c->numbers[CYCLE] = runner.next_cycle++;
    if (c->cycles++ % runner.settings->turns == 0) c->numbers[TRAJECTORY] = c->numbers[CYCLE];
}

static void begin(struct connection *c, uint64_t due) {
    runner.begun++;
    runner.in_flight++;
    choose_request(c);
    c->due = due;
    reply_begin(&c->reply, runner.now);
    if (c->fd < 0) reconnect(c);
    else send_request(c);
}

/* The next request of a closed loop. */
static void begin_next(struct connection *c) {
    runner.now = now_ns();
    if (runner.begun < runner.quota && runner.now < runner.stop) begin(c, runner.now);
    else c->state = IDLE;
}

/* The requests of an open loop that are due, as far as connections are free. */
static void begin_due(void) {
    while (runner.first_free != NULL && runner.begun < runner.quota && arrival(runner.begun) <= runner.now) {
        struct connection *c = runner.first_free;
        runner.first_free = c->next;
        runner.now = now_ns();
        begin(c, arrival(runner.begun));
    }
    if (runner.first_free == NULL) count_late();
}

static void finish(struct connection *c) {
    struct statistics *statistics = runner.statistics;
    statistics->requests++;
    statistics->status[c->reply.status]++;
    if (reply_lost(&c->reply)) statistics->lost++;
    histogram_add(&statistics->latency, runner.now - c->due);
    if (c->reply.fields.close || reply_ends_with_connection(&c->reply) || c->state == SENDING) disconnect(c);
    end_request(c, IDLE);
    if (runner.settings->rate == 0) begin_next(c);
}

static void receive(struct connection *c) {
    ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);
    runner.now = now_ns();
    if (n < 0 && errno == EAGAIN) return;
    if (c->state == IDLE) { /* the server closes a connection that it does not need */
        disconnect(c);
        return;
    }
    if (n <= 0) {
        if (n == 0 && reply_ends_with_connection(&c->reply)) finish(c);
        else fail(c);
        return;
    }
    runner.statistics->bytes += (uint64_t)n;
    switch (reply_take(&c->reply, buffer, (size_t)n, runner.now, runner.statistics)) {
    case MORE:
        return;
    case WHOLE:
        finish(c);
        return;
    case MALFORMED:
        fail(c);
    }
}

static void handle(struct connection *c, uint32_t events) {
    if (c->state == CONNECTING) {
        connected(c);
        return;
    }
    if (c->state == SENDING && (events & EPOLLOUT)) flush(c);
    if (c->fd >= 0 && (events & ~(uint32_t)EPOLLOUT)) receive(c);
}

static void tick(void) {
    runner.last_tick = runner.now;
    uint64_t timeout = (uint64_t)(runner.settings->timeout * 1e9);
    for (uint64_t i = 0; i < runner.settings->connections; i++) {
        struct connection *c = &runner.connections[i];
        if (c->state == RESTING) begin_next(c);
        else if (c->state != IDLE && runner.now > c->reply.sent + timeout) fail(c);
    }
}

static void wait_and_handle(void) {
    struct epoll_event events[256];
    bool open = runner.settings->rate > 0;
    if (open && runner.first_free != NULL && runner.begun < runner.quota && runner.armed != arrival(runner.begun)) {
        runner.armed = arrival(runner.begun);
        arm_timer(runner.timer, runner.armed);
    }
    int n = epoll_wait(runner.epoll, events, LENGTH(events), TICK / 1000000);
    if (n < 0 && errno != EINTR) die(1, "epoll_wait: %m");
    runner.now = now_ns();
    if (open) begin_due();
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == &runner.timer) continue;
        handle(events[i].data.ptr, events[i].events);
        if (open) begin_due();
    }
    if (runner.now >= runner.last_tick + TICK) tick();
}

uint64_t runner_open(struct settings *settings) {
    uint64_t opened = 0;
    runner.settings = settings;
    runner.next_cycle = settings->first_cycle;
    runner.epoll = epoll_create1(EPOLL_CLOEXEC);
    runner.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    runner.connections = calloc(settings->connections, sizeof(struct connection));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &runner.timer};
    if (runner.connections == NULL || epoll_ctl(runner.epoll, EPOLL_CTL_ADD, runner.timer, &event) < 0) die(1, "epoll: %m");
    struct timeval patience = {.tv_sec = (time_t)settings->timeout};
    patience.tv_usec = (suseconds_t)((settings->timeout - (double)patience.tv_sec) * 1e6);
    for (uint64_t i = 0; i < settings->connections; i++) {
        struct connection *c = &runner.connections[i];
        c->numbers[CONNECTION] = i;
        c->file = settings->file_count - 1; /* the first request begins a cycle */
        if (open_socket(c, 0) && setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == 0 &&
            call(c) == 0 && fcntl(c->fd, F_SETFL, O_NONBLOCK) == 0) {
            listen_for(c, EPOLL_CTL_ADD, 0);
            opened++;
        } else {
            disconnect(c);
            if (i == 0) break; /* nobody is there */
        }
    }
    return opened;
}

void runner_run(double seconds, uint64_t requests, struct statistics *statistics) {
    double rate = runner.settings->rate;
    memset(statistics, 0, sizeof(*statistics));
    runner.statistics = statistics;
    runner.begun = runner.late = 0;
    runner.first_free = NULL;
    runner.now = runner.start = runner.last_tick = now_ns();
    if (rate > 0) {
        runner.quota = 0; /* nothing is due before all are free */
        for (uint64_t i = 0; i < runner.settings->connections; i++) set_free(&runner.connections[i]);
        runner.quota = requests > 0 ? requests : (uint64_t)(rate * seconds + 0.5);
        runner.stop = arrival(runner.quota);
    } else {
        runner.quota = requests > 0 ? requests : UINT64_MAX;
        runner.stop = requests > 0 ? UINT64_MAX : runner.start + (uint64_t)(seconds * 1e9);
        for (uint64_t i = 0; i < runner.settings->connections; i++) begin_next(&runner.connections[i]);
    }
    /* The requests of an open loop that still wait for a connection after its end wait no longer than others. */
    uint64_t patience = rate > 0 ? (uint64_t)(runner.settings->timeout * 1e9) : 0;
    uint64_t stop = runner.stop > UINT64_MAX - patience ? UINT64_MAX : runner.stop + patience;
    while (runner.in_flight > 0 || (runner.begun < runner.quota && runner.now < stop)) wait_and_handle();
    if (rate > 0) {
        statistics->errors += runner.quota - runner.begun;
        if (runner.now < runner.stop) runner.now = runner.stop;
    }
    statistics->seconds = (double)(runner.now - runner.start) / 1e9;
}

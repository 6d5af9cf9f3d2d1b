/* Server-sent events that arrive in pieces, and the times in them. */
#ifndef EVENTS_H
#define EVENTS_H

#include "common.h"

struct event {
    bool done;        /* data: [DONE] */
    uint64_t written; /* the time in its content; 0 if there is none */
};

struct event_reader {
    struct bytes line; /* the beginning of a line that is not whole */
    bool in_event;
    struct event event;
};

void events_begin(struct event_reader *reader);

/* Moves *at on past the next whole event; false when there is none before end. */
bool events_next(struct event_reader *reader, const char **at, const char *end, struct event *event);

#endif

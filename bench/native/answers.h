/* The bytes that the model server answers with, made once. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct answer {
    char *data;
    size_t length;
};

struct answers {
    struct answer completion, models, empty, bad_setting, not_found, not_allowed, malformed;
    struct answer stream_head, stream_end, go_on;
};

#define EVENT_SIZE 512 /* no event is longer, its HTTP chunk included */

void answers_make(struct answers *answers);

/* Writes an event that says when it was written, in an HTTP chunk of its own; returns its length. */
size_t write_event(char *to, bool first, bool last);

#endif

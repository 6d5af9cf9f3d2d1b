/* An answer that the load generator reads in pieces. */
#ifndef REPLY_H
#define REPLY_H

#include "common.h"
#include "events.h"
#include "statistics.h"

struct reply {
    struct bytes head; /* the beginning of a head that is not whole */
    bool in_body, done; /* done: the event that ends a stream came */
    unsigned status;
    struct fields fields;
    struct body body;
    uint64_t sent, events; /* when the request was sent; events so far */
    struct event_reader reader;
};

enum progress { MORE, WHOLE, MALFORMED };

void reply_begin(struct reply *reply, uint64_t sent);

/* Takes what came now in one piece; counts the events in it. */
enum progress reply_take(struct reply *reply, const char *data, size_t length, uint64_t now, struct statistics *statistics);

/* Whether the end of the connection ends it, too. */
bool reply_ends_with_connection(const struct reply *reply);

/* Whether it is a stream without its end. */
bool reply_lost(const struct reply *reply);

#endif

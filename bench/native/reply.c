#include "reply.h"

#include <string.h>

void reply_begin(struct reply *reply, uint64_t sent) {
    reply->head.length = 0;
    reply->in_body = reply->done = false;
    reply->sent = sent;
    reply->events = 0;
    events_begin(&reply->reader);
}

bool reply_ends_with_connection(const struct reply *reply) {
    return reply->in_body && reply->body.kind == BODY_UNTIL_CLOSE;
}

bool reply_lost(const struct reply *reply) {
    return reply->in_body && reply->fields.event_stream && !reply->done;
}

/* Reads a head; an interim one (1xx) is passed over. */
static bool read_head(struct reply *reply, const char *head, size_t length) {
    uint64_t status;
    if (length < 14 || memcmp(head, "HTTP/1.", 7) != 0 || !whole_number(head + 9, 3, 100, 999, &status)) return false;
    if ((head[12] != ' ' && head[12] != '\r') || !read_fields(head, length, &reply->fields)) return false;
    if (status < 200) return true;
    if (status == 204 || status == 304) {
        reply->fields = (struct fields){.has_length = true, .close = reply->fields.close};
    }
    reply->status = (unsigned)status;
    reply->in_body = true;
    body_begin(&reply->body, &reply->fields, true);
    return true;
}

static void count_events(struct reply *reply, const char *piece, size_t length, uint64_t now, uint64_t *here,
                         struct statistics *statistics) {
    struct event event;
    for (const char *end = piece + length; events_next(&reply->reader, &piece, end, &event);) {
        if (event.done) {
            reply->done = true;
            continue;
        }
        if (reply->events++ == 0) histogram_add(&statistics->first_event, now - reply->sent);
        statistics->events++;
        if ((*here)++ > 0) statistics->merged++;
        if (event.written > 0 && event.written <= now) histogram_add(&statistics->event_delay, now - event.written);
    }
}

static enum progress take_body(struct reply *reply, const char *at, const char *end, uint64_t now,
                               struct statistics *statistics) {
    uint64_t here = 0; /* events in this piece */
    for (;;) {
        const char *piece;
        size_t length;
        switch (body_next(&reply->body, &at, end, &piece, &length)) {
        case BODY_PIECE:
            if (reply->fields.event_stream) count_events(reply, piece, length, now, &here, statistics);
            break;
        case BODY_MORE:
            return MORE;
        case BODY_END:
            return at == end ? WHOLE : MALFORMED;
        case BODY_MALFORMED:
            return MALFORMED;
        }
    }
}

enum progress reply_take(struct reply *reply, const char *data, size_t length, uint64_t now,
                         struct statistics *statistics) {
    bool kept = reply->head.length > 0;
    if (kept) {
        bytes_add(&reply->head, data, length);
        data = reply->head.data;
        length = reply->head.length;
    }
    const char *at = data, *end = data + length;
    while (!reply->in_body) {
        size_t head = head_length(at, (size_t)(end - at));
        if (head == 0 && end - at < MAX_HEAD) {
            if (kept) bytes_drop(&reply->head, (size_t)(at - data));
            else bytes_add(&reply->head, at, (size_t)(end - at));
            return MORE;
        }
        if (head == 0 || !read_head(reply, at, head)) return MALFORMED;
        at += head;
    }
    reply->head.length = 0; /* its bytes stay where they are until the next piece */
    return take_body(reply, at, end, now, statistics);
}

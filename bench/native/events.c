#define _GNU_SOURCE
#include "events.h"

#include <string.h>

#define MAX_LINE (64 * 1024) /* what a longer line says after that is not looked at */

void events_begin(struct event_reader *reader) {
    reader->line.length = 0;
    reader->in_event = false;
}

/* The number in "content":"t<number>", with or without a space; 0 if there is none. */
static uint64_t time_written(const char *data, size_t length) {
    const char *end = data + length;
    while ((data = memmem(data, (size_t)(end - data), "\"content\":", 10)) != NULL) {
        data += 10;
        const char *at = data;
        if (at < end && *at == ' ') at++;
        if (end - at < 3 || at[0] != '"' || at[1] != 't') continue;
        uint64_t number = 0;
        for (at += 2; at < end && *at >= '0' && *at <= '9'; at++) number = number * 10 + (uint64_t)(*at - '0');
        if (at < end && *at == '"') return number;
    }
    return 0;
}

/* Reads a line without its end; true if an event ends with it. */
static bool read_line(struct event_reader *reader, const char *line, size_t length) {
    if (length > 0 && line[length - 1] == '\r') length--;
    if (length == 0) {
        bool whole = reader->in_event;
        reader->in_event = false;
        return whole;
    }
    if (reader->in_event || length < 5 || memcmp(line, "data:", 5) != 0) return false;
    line += 5;
    length -= 5;
    if (length > 0 && *line == ' ') line++, length--;
    reader->in_event = true;
    reader->event.done = length == 6 && memcmp(line, "[DONE]", 6) == 0;
    reader->event.written = time_written(line, length);
    return false;
}

static void keep(struct event_reader *reader, const char *data, size_t length) {
    size_t room = MAX_LINE - reader->line.length;
    bytes_add(&reader->line, data, length < room ? length : room);
}

bool events_next(struct event_reader *reader, const char **at, const char *end, struct event *event) {
    while (*at < end) {
        const char *line = *at, *line_end = memchr(line, '\n', (size_t)(end - line));
        if (line_end == NULL) {
            keep(reader, line, (size_t)(end - line));
            *at = end;
            return false;
        }
        *at = line_end + 1;
        bool whole;
        if (reader->line.length > 0) {
            keep(reader, line, (size_t)(line_end - line));
            whole = read_line(reader, reader->line.data, reader->line.length);
            reader->line.length = 0;
        } else {
            whole = read_line(reader, line, (size_t)(line_end - line));
        }
        if (whole) {
            *event = reader->event;
            return true;
        }
    }
    return false;
}

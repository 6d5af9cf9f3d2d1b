/* What both programs need: a clock, limits, numbers, and the reading of HTTP/1.1. */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* A head larger than this is malformed. */
#define MAX_HEAD (64 * 1024)

/* CLOCK_MONOTONIC in nanoseconds: both programs see the same clock, so one may subtract the other's times. */
uint64_t now_ns(void);

/* Sets a timerfd to an absolute time of that clock. */
void arm_timer(int timer, uint64_t at);

/* Raises the limit of open files as far as it may go; says how far that is. */
uint64_t raise_file_limit(void);

/* A decimal number of digits alone, between the two bounds. */
bool whole_number(const char *text, size_t length, uint64_t least, uint64_t most, uint64_t *value);

/* Ends the program with a line on stderr. */
_Noreturn void die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A buffer that grows. */
struct bytes {
    char *data;
    size_t length, capacity;
};

void bytes_add(struct bytes *bytes, const void *data, size_t length);
void bytes_drop(struct bytes *bytes, size_t length); /* from the front */
void bytes_free(struct bytes *bytes);

/* What a head says of its body and its connection. */
struct fields {
    bool has_length, chunked, close, event_stream, expects_continue;
    uint64_t length;
};

/* The length of the head that data begins with, blank line included; 0 while it is not whole. */
size_t head_length(const char *data, size_t length);

/* Reads the fields of a whole head; false if they make no sense. */
bool read_fields(const char *head, size_t length, struct fields *fields);

/* A body that arrives in pieces. */
struct body {
    enum { BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_CLOSE } kind;
    enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER, CHUNK_TRAILER_LINE } state;
    uint64_t left; /* of the body or of the chunk */
    unsigned digits;
};

enum body_step { BODY_PIECE, BODY_MORE, BODY_END, BODY_MALFORMED };

void body_begin(struct body *body, const struct fields *fields, bool until_close);

/* Moves *at on and says what came: a piece of the body, the need for more input, the end, or nonsense. */
enum body_step body_next(struct body *body, const char **at, const char *end, const char **piece, size_t *length);

#endif

/* The requests to send: files with places for numbers. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <stddef.h>
#include <stdint.h>

enum number { CONNECTION, CYCLE, TRAJECTORY, NUMBERS };

struct place {
    enum number number;
    size_t at;
};

struct request {
    char *data;
    size_t length, place_count;
    struct place *places;
};

/* Reads a raw HTTP/1.1 request; ends the program if it is none. */
struct request request_read(const char *path);

/* Puts 12 digits in all the places. */
void request_fill(struct request *request, const uint64_t numbers[NUMBERS]);

#endif

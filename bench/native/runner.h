/* Sends requests over a fixed number of connections and counts what comes back. */
#ifndef RUNNER_H
#define RUNNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "requests.h"
#include "statistics.h"

struct settings {
    const char *server; /* as it was named */
    struct sockaddr_storage address;
    socklen_t address_size;
    uint64_t connections, requests, turns, first_cycle; /* requests: 0 if seconds say when to end */
    double seconds, rate, warmup, timeout;              /* rate: 0 for a closed loop */
    struct request *files;
    size_t file_count;
};

/* Opens the connections; returns how many could be opened. */
uint64_t runner_open(struct settings *settings);

/* Sends for so many seconds, or so many requests if seconds are 0, and waits for the answers. */
void runner_run(double seconds, uint64_t requests, struct statistics *statistics);

#endif

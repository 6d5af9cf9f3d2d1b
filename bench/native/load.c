/* Load on an HTTP/1.1 server of this machine: a closed loop, or an open one with --rate, over connections that are
   open before the time starts. Prints what came back as a JSON object. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "runner.h"

static const char USAGE[] =
    "usage: load HOST:PORT --connections N (--seconds S | --requests N) --request FILE [--request FILE ...]\n"
    "            [--rate R] [--warmup S] [--turns K] [--first-cycle C] [--timeout S]\n"
    "\n"
    "HOST is a loopback address: 127.0.0.1 or [::1]. FILE is a raw HTTP/1.1 request; in it these become 12 digits:\n"
    "  @CONNECTION@  the connection's number, from 0\n"
    "  @CYCLE_____@  the number of this pass through the files, counted over all connections, from --first-cycle (0)\n"
    "  @TRAJECTORY@  the number of the first of --turns (10) passes of a connection: no two connections share one\n"
    "Without --rate a connection sends its next request when the answer is whole. With it, R requests a second are\n"
    "due at even distances over all connections, and latency counts from when a request was due.\n"
    "--warmup S sends for S seconds first and counts nothing of it; --timeout S (30) is the patience with an answer,\n"
    "from sending the request to its last byte. What was sent is waited for.\n";

static uint64_t whole_option(const char *name, const char *text, uint64_t least, uint64_t most) {
    uint64_t value;
    if (whole_number(text, strlen(text), least, most, &value)) return value;
    die(2, "--%s must be a whole number from %" PRIu64 " to %" PRIu64 ", not '%s'", name, least, most, text);
}

static double decimal_option(const char *name, const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (strspn(text, "0123456789.") == strlen(text) && end != text && *end == '\0' && value >= least && value <= most) {
        return value;
    }
    die(2, "--%s must be a number from %g to %g, not '%s'", name, least, most, text);
}

static bool loopback(const char *host, uint16_t port, struct settings *settings) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)&settings->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&settings->address;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        settings->address_size = sizeof(*v4);
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        settings->address_size = sizeof(*v6);
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    }
    return false;
}

static void read_address(const char *text, struct settings *settings) {
    char host[64];
    uint64_t port;
    const char *colon = strrchr(text, ':');
    if (colon == NULL || !whole_number(colon + 1, strlen(colon + 1), 1, 65535, &port)) {
        die(2, "the address must be HOST:PORT, such as 127.0.0.1:8080, not '%s'", text);
    }
    settings->server = text;
    size_t length = (size_t)(colon - text);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') text++, length -= 2;
    snprintf(host, sizeof(host), "%.*s", (int)length, text);
    if (length >= sizeof(host) || !loopback(host, (uint16_t)port, settings)) {
        die(2, "HOST must be a loopback address, 127.0.0.1 or [::1], not '%.*s'", (int)length, text);
    }
}

static void read_option(int option, const char *name, const char *value, struct settings *settings) {
    switch (option) {
    case 'c':
        settings->connections = whole_option(name, value, 1, 20000);
        return;
    case 's':
        settings->seconds = decimal_option(name, value, 0.001, 3600);
        return;
    case 'n':
        settings->requests = whole_option(name, value, 1, 1000000000);
        return;
    case 'r':
        settings->rate = decimal_option(name, value, 0.001, 1000000);
        return;
    case 'w':
        settings->warmup = decimal_option(name, value, 0, 3600);
        return;
    case 'k':
        settings->turns = whole_option(name, value, 1, 1000000000);
        return;
    case 'f':
        settings->first_cycle = whole_option(name, value, 0, 999999999999);
        return;
    case 't':
        settings->timeout = decimal_option(name, value, 0.001, 3600);
        return;
    case 'q':
        settings->files = realloc(settings->files, (settings->file_count + 1) * sizeof(struct request));
        if (settings->files == NULL) die(1, "out of memory");
        settings->files[settings->file_count++] = request_read(value);
        return;
    case 'h':
        fputs(USAGE, stdout);
        exit(0);
    default: /* getopt has said what is wrong */
        die(2, "load --help lists the options");
    }
}

static struct settings read_arguments(int count, char **arguments) {
    static const struct option OPTIONS[] = {
        {"connections", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 's'},
        {"requests", required_argument, NULL, 'n'},    {"rate", required_argument, NULL, 'r'},
        {"warmup", required_argument, NULL, 'w'},      {"turns", required_argument, NULL, 'k'},
        {"first-cycle", required_argument, NULL, 'f'}, {"timeout", required_argument, NULL, 't'},
        {"request", required_argument, NULL, 'q'},     {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct settings settings = {.turns = 10, .timeout = 30};
    int option, index = 0;
    while ((option = getopt_long(count, arguments, "", OPTIONS, &index)) != -1) {
        read_option(option, OPTIONS[index].name, optarg, &settings);
    }
    if (optind != count - 1) die(2, "one address is needed, HOST:PORT; load --help says more");
    read_address(arguments[optind], &settings);
    if (settings.connections == 0) die(2, "--connections is needed: how many connections to open");
    if ((settings.seconds > 0) == (settings.requests > 0)) die(2, "one of --seconds and --requests is needed, not both");
    if (settings.file_count == 0) die(2, "--request is needed: a file with a raw HTTP/1.1 request");
    uint64_t limit = raise_file_limit();
    if (settings.connections + 16 > limit) {
        die(2, "--connections must be at most %" PRIu64 ", by the limit of open files (ulimit -n)", limit - 16);
    }
    return settings;
}

static void print_times(const char *name, const struct histogram *histogram) {
    printf(",\"%s\":", name);
    histogram_print(histogram, stdout);
}

static void print_count(const char *name, uint64_t count) {
    printf(",\"%s\":%" PRIu64, name, count);
}

static void print_report(const struct statistics *statistics, uint64_t connections) {
    const char *comma = "";
    printf("{\"requests\":%" PRIu64, statistics->requests);
    print_count("errors", statistics->errors);
    print_count("lost", statistics->lost);
    print_count("bytes", statistics->bytes);
    printf(",\"seconds\":%.9f,\"rate\":%.2f", statistics->seconds, (double)statistics->requests / statistics->seconds);
    print_count("connections", connections);
    printf(",\"status\":{");
    for (size_t status = 0; status < LENGTH(statistics->status); status++) {
        if (statistics->status[status] == 0) continue;
        printf("%s\"%zu\":%" PRIu64, comma, status, statistics->status[status]);
        comma = ",";
    }
    printf("}");
    print_times("latency_us", &statistics->latency);
    print_times("first_event_us", &statistics->first_event);
    print_times("event_delay_us", &statistics->event_delay);
    print_count("events", statistics->events);
    printf(",\"event_rate\":%.2f", (double)statistics->events / statistics->seconds);
    print_count("merged", statistics->merged);
    print_count("behind", statistics->behind);
    printf("}\n");
}

int main(int count, char **arguments) {
    static struct statistics statistics;
    struct settings settings = read_arguments(count, arguments);
    uint64_t opened = runner_open(&settings);
    if (opened == 0) die(1, "cannot connect to %s: %m", settings.server);
    if (opened < settings.connections) {
        fprintf(stderr, "%" PRIu64 " of %" PRIu64 " connections could be opened\n", opened, settings.connections);
    }
    if (settings.warmup > 0) runner_run(settings.warmup, 0, &statistics);
    runner_run(settings.seconds, settings.requests, &statistics);
    print_report(&statistics, opened);
    return 0;
}

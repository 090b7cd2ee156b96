/* What every C program of the benchmark shares: the command line, the clock, the statistics and
 * the one line of JSON that the harness reads. bench/README.md describes the protocol. */
#ifndef UKSHM_BENCH_COMMON_H
#define UKSHM_BENCH_COMMON_H
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Ends a phase: no sequence number ever reaches it. */
#define END_WORD 0xffffffffu
/* Even a phase too short for it touches each slot of a large message. */
#define MESSAGES_MIN 4u
#define SAMPLES_MAX 2000000u

struct job {
  int listens;
  const char *name;
  size_t size;
  double warm_seconds;
  double run_seconds;
  const char *address;
};

static inline void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static inline void wrong(uint32_t expected, uint32_t got) {
  fprintf(stderr, "expected word %u, got %u\n", expected, got);
  exit(2);
}

static inline struct job parse_job(int argc, char **argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: %s listen|connect JOB SIZE WARM_MS RUN_MS ADDRESS\n", argv[0]);
    exit(64);
  }
  return (struct job){strcmp(argv[1], "listen") == 0,   argv[2],
                      strtoull(argv[3], NULL, 10),      atof(argv[4]) / 1e3,
                      atof(argv[5]) / 1e3,              argv[6]};
}

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Messages between two looks at the clock: rare enough to cost nothing. */
static inline uint32_t clock_interval(size_t size) {
  if (size <= 8192) return 1024;
  return size <= 1u << 20 ? 16 : 1;
}

/* A private payload: the last word is the message's number, so that a receiver that copied the
 * whole of it can check the very end of the copy. */
static inline uint8_t *new_payload(size_t size) {
  uint8_t *bytes = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
  if (bytes == NULL) die("aligned_alloc");
  for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)i;
  return bytes;
}

static inline void stamp(uint8_t *bytes, size_t size, uint32_t word) {
  memcpy(bytes + size - 4, &word, 4);
}

static inline uint32_t stamp_of(const uint8_t *bytes, size_t size) {
  uint32_t word;
  memcpy(&word, bytes + size - 4, 4);
  return word;
}

/* Keeps the compiler from dropping a copy of which it sees only one word used. */
static inline void keep(void *bytes) { __asm__ volatile("" : : "r"(bytes) : "memory"); }

static inline int compare_u32(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* The median cost of one empty interval; taken off each sample. */
static inline uint32_t clock_cost_ns(void) {
  static uint32_t costs[1001];
  for (int i = 0; i < 1001; i++) {
    uint64_t start = now_ns();
    costs[i] = (uint32_t)(now_ns() - start);
  }
  qsort(costs, 1001, sizeof costs[0], compare_u32);
  return costs[500];
}

static inline void print_samples(uint32_t *samples, uint32_t n) {
  uint32_t cost = clock_cost_ns();
  double sum = 0;
  for (uint32_t i = 0; i < n; i++) {
    samples[i] = samples[i] > cost ? samples[i] - cost : 0;
    sum += samples[i];
  }
  qsort(samples, n, sizeof samples[0], compare_u32);
#define AT(q) samples[(uint32_t)((q) * (n - 1))]
  printf("{\"n\":%u,\"mean\":%.1f,\"p50\":%u,\"p99\":%u,\"p999\":%u,\"max\":%u}\n", n, sum / n,
         AT(0.5), AT(0.99), AT(0.999), samples[n - 1]);
#undef AT
}

static inline void print_rate(uint64_t messages, uint64_t ns) {
  printf("{\"n\":%llu,\"seconds\":%.9f}\n", (unsigned long long)messages, (double)ns / 1e9);
}

/* Runs `trip` for the warm-up, then for the measurement, and prints the samples. */
typedef void (*trip_fn)(void *context);
static inline void measure_trips(const struct job *job, trip_fn trip, void *context) {
  uint64_t until = now_ns() + (uint64_t)(job->warm_seconds * 1e9);
  do trip(context); while (now_ns() < until);
  uint32_t *samples = malloc(SAMPLES_MAX * sizeof *samples);
  if (samples == NULL) die("malloc");
  memset(samples, 0, SAMPLES_MAX * sizeof *samples);
  uint32_t n = 0;
  uint64_t start = now_ns();
  until = start + (uint64_t)(job->run_seconds * 1e9);
  do {
    start = now_ns();
    trip(context);
    uint64_t took = now_ns() - start;
    samples[n++] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
  } while (n < SAMPLES_MAX && start < until);
  print_samples(samples, n);
}

#endif

/* A Unix stream socket, blocking, as a plain C program uses it: one write a message (or one for
 * 16 of them), reads as large as what has arrived. Whoever waits sleeps. */
#include "common.h"
#include <sys/socket.h>
#include <sys/un.h>

#define BATCH 16u
#define READ_MAX 262144u

static int meet(const struct job *job) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (fd < 0 || strlen(job->address) >= sizeof address.sun_path) die("socket");
  strcpy(address.sun_path, job->address);
  if (!job->listens) {
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    return fd;
  }
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0) die("bind");
  printf("ready\n");
  fflush(stdout);
  int peer = accept(fd, NULL, NULL);
  if (peer < 0) die("accept");
  unlink(job->address);
  return peer;
}

static void write_all(int fd, const uint8_t *bytes, size_t size) {
  while (size > 0) {
    ssize_t written = write(fd, bytes, size);
    if (written <= 0) die("write");
    bytes += written;
    size -= (size_t)written;
  }
}

static void read_all(int fd, uint8_t *bytes, size_t size) {
  while (size > 0) {
    ssize_t got = read(fd, bytes, size);
    if (got <= 0) die("read");
    bytes += got;
    size -= (size_t)got;
  }
}

struct pinger {
  int fd;
  size_t size;
  uint8_t *source, *copy;
  uint32_t sequence;
};

static void trip(void *context) {
  struct pinger *p = context;
  stamp(p->source, p->size, ++p->sequence);
  write_all(p->fd, p->source, p->size);
  read_all(p->fd, p->copy, p->size);
  uint32_t word = stamp_of(p->copy, p->size);
  if (word != p->sequence) wrong(p->sequence, word);
}

static void echo(const struct pinger *p) {
  for (;;) {
    read_all(p->fd, p->copy, p->size);
    uint32_t word = stamp_of(p->copy, p->size);
    if (word == END_WORD) return;
    stamp(p->source, p->size, word);
    write_all(p->fd, p->source, p->size);
  }
}

/* The payloads of a batch lie side by side in `source`, so that one write sends them all. */
static uint32_t send_phase(const struct pinger *p, double seconds, uint32_t batch) {
  uint32_t sequence = 0, interval = p->size <= 8192 ? 128 : clock_interval(p->size);
  uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
  do {
    for (uint32_t i = 0; i < interval; i += batch) {
      for (uint32_t j = 0; j < batch; j++) stamp(p->source + j * p->size, p->size, sequence++);
      write_all(p->fd, p->source, p->size * batch);
    }
  } while (sequence < MESSAGES_MIN || now_ns() < until);
  stamp(p->source, p->size, END_WORD);
  write_all(p->fd, p->source, p->size);
  read_all(p->fd, p->copy, 4);
  return sequence;
}

/* `read` is the copy. What has arrived may hold many messages and part of one: an array of
 * READ_MAX bytes takes them all, and a large message is read in pieces straight to its place. */
static void receive_phase(const struct pinger *p, uint8_t *buffer, size_t capacity) {
  size_t held = 0;
  for (uint32_t expected = 0;;) {
    ssize_t got = read(p->fd, buffer + held, capacity - held);
    if (got <= 0) die("read");
    held += (size_t)got;
    size_t at = 0;
    for (; held - at >= p->size; at += p->size) {
      uint32_t word = stamp_of(buffer + at, p->size);
      if (word == END_WORD) {
        write_all(p->fd, (uint8_t *)&word, 4);
        return;
      }
      if (word != expected) wrong(expected, word);
      expected++;
    }
    memmove(buffer, buffer + at, held - at);
    held -= at;
  }
}

int main(int argc, char **argv) {
  struct job job = parse_job(argc, argv);
  uint32_t batch = job.size <= 8192 && strcmp(job.name, "one-way-batched") == 0 ? BATCH : 1;
  int trips = strncmp(job.name, "round-trip", 10) == 0;
  size_t capacity = job.size < READ_MAX ? READ_MAX : job.size;
  struct pinger p = {meet(&job), job.size, new_payload(job.size * batch), new_payload(capacity), 0};
  if (job.listens && trips) echo(&p);
  else if (job.listens) {
    receive_phase(&p, p.copy, capacity);
    receive_phase(&p, p.copy, capacity);
  } else if (trips) {
    measure_trips(&job, trip, &p);
    stamp(p.source, p.size, END_WORD);
    write_all(p.fd, p.source, p.size);
  } else {
    send_phase(&p, job.warm_seconds, batch);
    uint64_t start = now_ns();
    uint32_t sent = send_phase(&p, job.run_seconds, batch);
    print_rate(sent, now_ns() - start);
  }
  return 0;
}

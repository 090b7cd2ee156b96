/* Gives the other process so many bytes, which reads all of them into a private buffer and answers
 * with four: by a Unix socket, by a pipe with vmsplice, and by a memfd passed with SCM_RIGHTS, which
 * the giver then unmaps. The bytes are there before the clock starts, except in give-page and
 * give-rate, where a page is made, written, passed, unmapped, mapped, read and freed.
 * Whoever waits sleeps. */
#include "common.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#define PIPE_BYTES (1 << 20)
#define WINDOW 16u

enum way { SOCKET, PIPE, MEMFD };

struct giver {
  enum way way;
  int fd, pipe;
  size_t size;
  uint8_t *payload, *copy;
  int memfd;
  uint8_t *mapped;
};

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

static int open_pipe(const struct job *job) {
  char path[256];
  snprintf(path, sizeof path, "%s-pipe", job->address);
  if (job->listens && mkfifo(path, 0600) < 0) die("mkfifo");
  return open(path, O_RDWR | O_CLOEXEC);
}

static void write_all(int fd, const uint8_t *bytes, size_t size) {
  while (size > 0) {
    ssize_t written = write(fd, bytes, size);
    if (written <= 0) die("write");
    bytes += written;
    size -= (size_t)written;
  }
}

/* 0 at the end. */
static int read_all(int fd, uint8_t *bytes, size_t size) {
  while (size > 0) {
    ssize_t got = read(fd, bytes, size);
    if (got < 0) die("read");
    if (got == 0) return 0;
    bytes += got;
    size -= (size_t)got;
  }
  return 1;
}

static void splice_all(int fd, uint8_t *bytes, size_t size) {
  while (size > 0) {
    struct iovec vector = {bytes, size};
    ssize_t given = vmsplice(fd, &vector, 1, 0);
    if (given <= 0) die("vmsplice");
    bytes += given;
    size -= (size_t)given;
  }
}

static void make_memfd(struct giver *g, size_t filled) {
  g->memfd = (int)syscall(SYS_memfd_create, "give", 1u);
  if (g->memfd < 0 || ftruncate(g->memfd, (off_t)g->size) < 0) die("memfd");
  g->mapped = mmap(NULL, g->size, PROT_READ | PROT_WRITE, MAP_SHARED, g->memfd, 0);
  if (g->mapped == MAP_FAILED) die("mmap");
  memcpy(g->mapped, g->payload, filled);
}

static void pass_memfd(struct giver *g) {
  uint8_t byte = 0;
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr alignment;
  } control = {{0}};
  struct iovec vector = {&byte, 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &g->memfd, sizeof(int));
  if (sendmsg(g->fd, &message, 0) != 1) die("sendmsg");
  munmap(g->mapped, g->size);
  close(g->memfd);
}

static int take_memfd(struct giver *g) {
  uint8_t byte;
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr alignment;
  } control;
  struct iovec vector = {&byte, 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t got = recvmsg(g->fd, &message, MSG_CMSG_CLOEXEC);
  if (got == 0) return 0;
  if (got < 0) die("recvmsg");
  int fd;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  uint8_t *mapped = mmap(NULL, g->size, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) die("mmap");
  memcpy(g->copy, mapped, g->size);
  g->memfd = fd;
  g->mapped = mapped;
  return 1;
}

static void give(struct giver *g) {
  if (g->way == SOCKET) write_all(g->fd, g->payload, g->size);
  else if (g->way == PIPE) splice_all(g->pipe, g->payload, g->size);
  else pass_memfd(g);
}

static uint32_t answer_of(struct giver *g) {
  uint32_t word;
  if (!read_all(g->fd, (uint8_t *)&word, 4)) die("answer");
  return word;
}

/* Reads all of what comes until the giver hangs up. */
static void receive(struct giver *g) {
  for (;;) {
    if (g->way == SOCKET ? !read_all(g->fd, g->copy, g->size)
                         : g->way == PIPE ? 0 : !take_memfd(g))
      return;
    if (g->way == PIPE) {
      /* The pipe never ends: the socket says whether there is more. */
      uint8_t more;
      if (!read_all(g->fd, &more, 1)) return;
      read_all(g->pipe, g->copy, g->size);
    }
    keep(g->copy);
    uint32_t word = stamp_of(g->copy, g->size);
    write_all(g->fd, (uint8_t *)&word, 4);
    /* Freed behind the answer, as everybody does. */
    if (g->way != MEMFD) continue;
    munmap(g->mapped, g->size);
    close(g->memfd);
  }
}

static void measure(struct giver *g, const struct job *job, int all_in) {
  uint32_t *samples = calloc(SAMPLES_MAX, sizeof *samples);
  if (samples == NULL) die("calloc");
  uint32_t n = 0, sequence = 0;
  uint64_t warm = now_ns() + (uint64_t)(job->warm_seconds * 1e9);
  uint64_t until = warm + (uint64_t)(job->run_seconds * 1e9);
  for (uint64_t start = 0; start < until && n < SAMPLES_MAX;) {
    stamp(g->payload, g->size, ++sequence);
    if (g->way == MEMFD && !all_in) make_memfd(g, g->size);
    start = now_ns();
    if (g->way == MEMFD && all_in) make_memfd(g, g->size);
    if (g->way == PIPE) write_all(g->fd, g->payload, 1);
    give(g);
    uint32_t word = answer_of(g);
    uint64_t took = now_ns() - start;
    if (word != sequence) wrong(sequence, word);
    if (start >= warm || n == 0) samples[n++] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
  }
  print_samples(samples, n);
}

/* Up to WINDOW pages are under way. */
static void measure_rate(struct giver *g, const struct job *job) {
  uint32_t sent = 0, answered = 0, counted = 0;
  uint64_t warm = now_ns() + (uint64_t)(job->warm_seconds * 1e9);
  uint64_t until = warm + (uint64_t)(job->run_seconds * 1e9), begun = 0, now;
  do {
    while (sent - answered < WINDOW) {
      stamp(g->payload, g->size, ++sent);
      make_memfd(g, g->size);
      pass_memfd(g);
    }
    if (answer_of(g) != ++answered) wrong(answered, 0);
    now = now_ns();
    if (now < warm) continue;
    if (begun == 0) begun = now;
    else counted++;
  } while (now < until);
  while (answered < sent) answered += answer_of(g) > 0;
  print_rate(counted, now - begun);
}

int main(int argc, char **argv) {
  struct job job = parse_job(argc, argv);
  struct giver g = {.size = job.size, .payload = new_payload(job.size),
                    .copy = new_payload(job.size), .pipe = -1};
  g.way = strcmp(job.name, "give-socket") == 0   ? SOCKET
          : strcmp(job.name, "give-vmsplice") == 0 ? PIPE
                                                   : MEMFD;
  if (job.listens && g.way == PIPE) g.pipe = open_pipe(&job);
  g.fd = meet(&job);
  if (!job.listens && g.way == PIPE) g.pipe = open_pipe(&job);
  if (g.way == PIPE && (g.pipe < 0 || fcntl(g.pipe, F_SETPIPE_SZ, PIPE_BYTES) < 0)) die("pipe");
  if (job.listens) receive(&g);
  else if (strcmp(job.name, "give-rate") == 0) measure_rate(&g, &job);
  else measure(&g, &job, strcmp(job.name, "give-page") == 0);
  return 0;
}

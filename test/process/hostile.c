// The parts of hostile peers that need C: written from docs/FORMAT.md alone.
//
//   hostile flip ADDRESS SECONDS   connects to the abstract socket ADDRESS, sends messages, and
//                                  flips their bytes between ASCII and UTF-8 as fast as it can
//   hostile fuse FOLDER            mounts a file system with one file on FOLDER, which can be
//                                  opened, and answers nothing else; ends with its standard input
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
  exit(1);
}

// ---- flip ----

enum { TAIL = 128, HEAD = 256, RING = 4096, CHUNK_BYTES = 16384 };
/// The ring is used in slots of 4096 bytes: a message and padding. Which length lies in which slot
/// never changes, so that payloads can be flipped without touching a header; 0: the chunk.
enum { SLOT_BYTES = 4096 };
static const uint32_t lengths[] = {1, 7, 64, 256, 2000, 0};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static uint8_t *own;
static atomic_bool done;

static uint32_t get(const uint8_t *at) {
  uint32_t word;
  memcpy(&word, at, sizeof word);
  return word;
}

static void put(uint8_t *at, uint32_t word) { memcpy(at, &word, sizeof word); }

/// Words of two kinds of text of the same length, and of bytes that are no text at all.
static const char *const words[] = {"12345678", "\xe4\xb8\x96\xf0\x9f\x8c\x8d{", "{\"a\":[]}",
                                    "\xf0\x9f\xff\xe4\x80\x22\xc3\xb6"};

static void *flip(void *unused) {
  (void)unused;
  const uint32_t ring_bytes = get(own + 8);
  uint8_t *const arena = own + get(own + 20);
  for (unsigned turn = 0; !atomic_load_explicit(&done, memory_order_relaxed); turn++) {
    const char *word = words[turn % 4];
    for (uint32_t slot = 0; slot < ring_bytes / SLOT_BYTES; slot++) {
      uint8_t *const payload = own + RING + slot * SLOT_BYTES + 8;
      for (uint32_t at = 0; at < lengths[slot % LENGTHS]; at++) payload[at] = (uint8_t)word[at % 8];
    }
    for (uint32_t at = 0; at < CHUNK_BYTES; at += 8) memcpy(arena + at, word, 8);
  }
  return NULL;
}

static int connect_to(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(name);
  memcpy(address.sun_path + 1, name, length);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
  if (connect(fd, (struct sockaddr *)&address, size) != 0) die("connect");
  return fd;
}

/// The meeting: maps the own outbox writable and seals it. Returns the other's, read-only.
static const uint8_t *meet(int fd) {
  uint8_t hello[256] = {0};
  put(hello, 0x49484b55);
  put(hello + 4, 1);
  memset(hello + 16, 0xff, 16);
  if (send(fd, hello, sizeof hello, 0) != sizeof hello) die("hello");
  uint8_t welcome[64];
  union {
    char bytes[CMSG_SPACE(2 * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  struct iovec vector = {welcome, sizeof welcome};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  if (recvmsg(fd, &message, MSG_WAITALL) != sizeof welcome) die("welcome");
  if (get(welcome + 8) != 0 || CMSG_FIRSTHDR(&message) == NULL) die("refused");
  int fds[2];
  memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fds);
  struct stat theirs, ours;
  if (fstat(fds[0], &theirs) != 0 || fstat(fds[1], &ours) != 0) die("fstat");
  own = mmap(NULL, (size_t)ours.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
  const uint8_t *other = mmap(NULL, (size_t)theirs.st_size, PROT_READ, MAP_SHARED, fds[0], 0);
  if (own == MAP_FAILED || other == MAP_FAILED) die("mmap");
  put(own + 8, get(welcome + 24));
  put(own + 20, (get(welcome + 24) + RING + 32768 + 65535) / 65536 * 65536);
  if (fcntl(fds[1], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | 0x10 | F_SEAL_SEAL) != 0) die("seal");
  uint8_t ack[16] = {0};
  put(ack, 0x4b4f4b55);
  put(ack + 4, 1);
  if (send(fd, ack, sizeof ack, 0) != sizeof ack) die("ack");
  return other;
}

/// Publishes the next slot.
static uint32_t publish(uint32_t tail, unsigned turn) {
  const uint32_t slot = tail % get(own + 8) / SLOT_BYTES;
  const uint32_t length = lengths[slot % LENGTHS];
  uint8_t *const at = own + RING + slot * SLOT_BYTES;
  uint32_t used;
  if (length == 0) {
    uint32_t body[] = {24 | 0xfffeU << 16, turn, get(own + 20), CHUNK_BYTES, turn % 4096, turn, 0, 0};
    memcpy(at, body, sizeof body);
    used = sizeof body;
  } else {
    put(at, length);
    put(at + 4, turn);
    used = 8 + (length + 7) / 8 * 8;
  }
  put(at + used, (SLOT_BYTES - used) / 8 | 0xffffU << 16);
  tail += SLOT_BYTES;
  atomic_store((_Atomic uint32_t *)(void *)(own + TAIL), tail);
  return tail;
}

static int flip_main(const char *name, int seconds) {
  int fd = connect_to(name);
  const uint8_t *other = meet(fd);
  const uint32_t ring_bytes = get(own + 8);
  pthread_t thread;
  if (pthread_create(&thread, NULL, flip, NULL) != 0) die("pthread_create");
  uint32_t tail = 0;
  unsigned turn = 0;
  const time_t end = time(NULL) + seconds;
  while (time(NULL) < end) {
    uint32_t head = atomic_load((const _Atomic uint32_t *)(const void *)(other + HEAD));
    if (tail - head + SLOT_BYTES > ring_bytes) {
      struct pollfd hang_up = {.fd = fd, .events = POLLRDHUP};
      if (poll(&hang_up, 1, 1) > 0) break;
      continue;
    }
    tail = publish(tail, turn++);
    if (send(fd, "\1", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN) break;
  }
  atomic_store(&done, true);
  pthread_join(thread, NULL);
  printf("%u messages\n", turn);
  return 0;
}

// ---- fuse ----

static void reply(int fuse, uint64_t unique, int error, const void *body, size_t length) {
  uint8_t bytes[512];
  struct fuse_out_header header = {
      .len = (uint32_t)(sizeof header + length), .error = error, .unique = unique};
  memcpy(bytes, &header, sizeof header);
  memcpy(bytes + sizeof header, body, length);
  if (write(fuse, bytes, sizeof header + length) < 0 && errno != ENOENT) die("write /dev/fuse");
}

/// Answers INIT, LOOKUP, the folder's GETATTR and OPEN. Whatever else is asked waits for ever.
static void answer(int fuse, const uint8_t *request, const char *folder_path) {
  const struct fuse_in_header *in = (const void *)request;
  struct fuse_attr file = {.ino = 2, .mode = S_IFREG | 0644, .nlink = 1, .size = 4096};
  struct fuse_attr folder = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 1};
  if (in->opcode == FUSE_INIT) {
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
    reply(fuse, in->unique, 0, &out, sizeof out);
  } else if (in->opcode == FUSE_LOOKUP) {
    struct fuse_entry_out out = {.nodeid = 2, .attr = file, .entry_valid = 3600};
    reply(fuse, in->unique, 0, &out, sizeof out);
  } else if (in->opcode == FUSE_GETATTR && in->nodeid == 1) {
    struct fuse_attr_out out = {.attr = folder, .attr_valid = 3600};
    reply(fuse, in->unique, 0, &out, sizeof out);
  } else if (in->opcode == FUSE_OPEN) {
    struct fuse_open_out out = {.fh = 1};
    reply(fuse, in->unique, 0, &out, sizeof out);
    // The open file is all that is needed: nothing can stay mounted, whoever dies now.
    umount2(folder_path, MNT_DETACH);
  }
}

static int fuse_main(const char *folder) {
  int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse < 0) die("open /dev/fuse");
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
  if (mount("hostile", folder, "fuse", MS_NOSUID | MS_NODEV, options) != 0) die("mount");
  // A test that waits for an answer cannot end this process any more.
  alarm(25);
  puts("mounted");
  fflush(stdout);
  static uint8_t request[65536] __attribute__((aligned(8)));
  struct pollfd both[] = {{.fd = fuse, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  while (poll(both, 2, -1) > 0 && both[1].revents == 0) {
    if (read(fuse, request, sizeof request) > 0) answer(fuse, request, folder);
  }
  // Whoever waits for an answer gets ENOTCONN as soon as this process has ended.
  umount2(folder, MNT_DETACH);
  return 0;
}

int main(int count, char **arguments) {
  if (count == 4 && strcmp(arguments[1], "flip") == 0)
    return flip_main(arguments[2], atoi(arguments[3]));
  if (count == 3 && strcmp(arguments[1], "fuse") == 0) return fuse_main(arguments[2]);
  fprintf(stderr, "usage: hostile flip ADDRESS SECONDS | hostile fuse FOLDER\n");
  return 2;
}

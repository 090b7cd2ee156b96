// The thread that answers other processes, whatever JavaScript does meanwhile.
//
// Two abstract sockets carry the process's number in their names. At `ukshm-offer/1/<pid>` others
// connect; if somebody squats there, at the same name with eight random digits behind it. A datagram
// to `ukshm-offer/1/<pid>/in`, whatever is in it, means: there may be an offer for you.
//
// All waiting is bounded: so many connections, so many of one process, so long without a word.
#include "offers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

#define CONNECTIONS_MAX 64
#define CONNECTIONS_PER_PROCESS_MAX 16
#define SILENCE_MS 5000
#define BACKLOG 1024
#define EVENTS_MAX 64
/// Accepted in a row before those that are there are heard again.
#define ACCEPTED_AT_ONCE 16
#define POKES_AT_ONCE 64

extern int uv_thread_create(pthread_t *thread, void (*entry)(void *data), void *data);
extern int uv_thread_join(pthread_t *thread);

/// What an event is about: in the top byte of its data, which is 0 in the address of a connection.
#define KIND_SHIFT 56
enum { EVENT_BELL = 1, EVENT_LISTENER, EVENT_POKE, EVENT_RECEIVER };

static pthread_mutex_t lifecycle = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread;
static bool running;
static int epoll = -1;
static int listener = -1;
static int pokes = -1;
static int bell = -1;
static atomic_bool stopping;
static connection *connections;  // the thread's own

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int watch(int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events};
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

void watch_receiver(const receiver *r, bool yes) {
  if (yes) watch(r->pidfd, EPOLLIN, (uint64_t)EVENT_RECEIVER << KIND_SHIFT | (uint32_t)r->pid);
  else epoll_ctl(epoll, EPOLL_CTL_DEL, r->pidfd, NULL);
}

/// `suffix` NULL: none. The length that bind(2) and sendto(2) want.
static socklen_t name_of(struct sockaddr_un *address, pid_t pid, const char *suffix) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  int length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1,
                        "ukshm-offer/1/%d%s", (int)pid, suffix == NULL ? "" : suffix);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static int bind_listener(void) {
  struct sockaddr_un address;
  socklen_t length_bytes = name_of(&address, getpid(), NULL);
  for (int tries = 0; tries < 8; tries++) {
    if (bind(listener, (struct sockaddr *)&address, length_bytes) == 0)
      return listen(listener, BACKLOG) == 0 ? 0 : -errno;
    if (errno != EADDRINUSE) return -errno;
    uint32_t chance = 0;
    char suffix[16];
    if (getrandom(&chance, sizeof chance, 0) < 0) return -errno;
    snprintf(suffix, sizeof suffix, "/%08x", chance);
    length_bytes = name_of(&address, getpid(), suffix);
  }
  return -EADDRINUSE;
}

static void close_all(void) {
  int *fds[] = {&listener, &pokes, &bell, &epoll};
  for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
    if (*fds[i] >= 0) close(*fds[i]);
    *fds[i] = -1;
  }
}

static int open_all(void) {
  const int type = SOCK_NONBLOCK | SOCK_CLOEXEC;
  epoll = epoll_create1(EPOLL_CLOEXEC);
  bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  listener = socket(AF_UNIX, SOCK_SEQPACKET | type, 0);
  pokes = socket(AF_UNIX, SOCK_DGRAM | type, 0);
  if (epoll < 0 || bell < 0 || listener < 0 || pokes < 0) return -errno;
  int result = bind_listener();
  if (result != 0) return result;
  struct sockaddr_un address;
  // Taken by a squatter: then whoever waits for offers looks for them from time to time.
  socklen_t length_bytes = name_of(&address, getpid(), "/in");
  (void)!bind(pokes, (struct sockaddr *)&address, length_bytes);
  if (watch(bell, EPOLLIN, (uint64_t)EVENT_BELL << KIND_SHIFT) != 0 ||
      watch(listener, EPOLLIN, (uint64_t)EVENT_LISTENER << KIND_SHIFT) != 0 ||
      watch(pokes, EPOLLIN, (uint64_t)EVENT_POKE << KIND_SHIFT) != 0)
    return -errno;
  return 0;
}

static void close_connection(connection *c) {
  if (c->fd < 0) return;
  close(c->fd);
  if (c->pidfd >= 0) close(c->pidfd);
  free(c->out);
  c->out = NULL;
  c->fd = -1;
}

/// Frees the closed ones: between two rounds, when no event speaks of them any more.
static void sweep(bool all) {
  for (connection **at = &connections; *at != NULL;) {
    connection *c = *at;
    if (all) close_connection(c);
    if (c->fd < 0) {
      *at = c->next;
      free(c);
    } else {
      at = &c->next;
    }
  }
}

/// Makes room: a process beyond its share loses its own eldest connection; when all places are
/// taken, the one that has been silent for longest goes.
static void make_room(pid_t pid) {
  connection *eldest = NULL;
  connection *eldest_own = NULL;
  int count = 0;
  int own_count = 0;
  for (connection *c = connections; c != NULL; c = c->next) {
    if (c->fd < 0) continue;
    count++;
    if (eldest == NULL || c->deadline_ms < eldest->deadline_ms) eldest = c;
    if (c->pid != pid) continue;
    own_count++;
    if (eldest_own == NULL || c->deadline_ms < eldest_own->deadline_ms) eldest_own = c;
  }
  if (own_count >= CONNECTIONS_PER_PROCESS_MAX) close_connection(eldest_own);
  else if (count >= CONNECTIONS_MAX) close_connection(eldest);
}

/// Answers what a connection asks, until it asks no more or does not take its answers.
static void serve(connection *c) {
  bool alive = flush_answers(c) && (c->out != NULL || answer_request(c)) && flush_answers(c);
  if (!alive) {
    close_connection(c);
    return;
  }
  c->deadline_ms = now_ms() + SILENCE_MS;
  struct epoll_event event = {.events = c->out == NULL ? EPOLLIN : EPOLLOUT};
  event.data.u64 = (uint64_t)(uintptr_t)c;
  epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static bool accept_one(void) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return false;
  struct ucred credentials = {0};
  socklen_t length_bytes = sizeof credentials;
  connection *c = NULL;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length_bytes) == 0) {
    make_room(credentials.pid);
    c = calloc(1, sizeof *c);
  }
  if (c == NULL) {
    close(fd);
    return true;
  }
  const int no = 0;
  setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof no);
  *c = (connection){.next = connections, .fd = fd, .pid = credentials.pid, .uid = credentials.uid,
                    .pidfd = -1, .deadline_ms = now_ms() + SILENCE_MS};
  length_bytes = sizeof c->pidfd;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &c->pidfd, &length_bytes) != 0) c->pidfd = -1;
  connections = c;
  if (watch(fd, EPOLLIN, (uint64_t)(uintptr_t)c) != 0) close_connection(c);
  // Its request came with it, as a rule: served before a flood behind it can push it out.
  else serve(c);
  return true;
}

static void on_event(const struct epoll_event *event) {
  uint32_t kind = (uint32_t)(event->data.u64 >> KIND_SHIFT);
  char byte;
  switch (kind) {
    case EVENT_BELL:
      return;  // `stopping` says why
    case EVENT_LISTENER:
      for (int i = 0; i < ACCEPTED_AT_ONCE && accept_one(); i++) continue;
      return;
    case EVENT_POKE:
      for (int i = 0; i < POKES_AT_ONCE && recv(pokes, &byte, 1, MSG_DONTWAIT) >= 0; i++) continue;
      pthread_mutex_lock(&offers_lock);
      poked();
      pthread_mutex_unlock(&offers_lock);
      return;
    case EVENT_RECEIVER:
      pthread_mutex_lock(&offers_lock);
      receiver_gone((pid_t)(uint32_t)event->data.u64);
      pthread_mutex_unlock(&offers_lock);
      return;
    default: {
      connection *c = (connection *)(uintptr_t)event->data.u64;
      if (c->fd < 0) return;
      if (event->events & (EPOLLERR | EPOLLHUP)) close_connection(c);
      else serve(c);
    }
  }
}

/// Ends the connections that were silent for too long; until when none will be, in milliseconds.
static int next_timeout(void) {
  int64_t now = now_ms();
  int64_t next = -1;
  for (connection *c = connections; c != NULL; c = c->next) {
    if (c->fd >= 0 && c->deadline_ms <= now) close_connection(c);
    if (c->fd < 0) continue;
    if (next < 0 || c->deadline_ms - now < next) next = c->deadline_ms - now;
  }
  sweep(false);
  return (int)next;
}

static void run(void *unused) {
  (void)unused;
  // Signals are for the program's own threads.
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, SIGSEGV);
  sigprocmask(SIG_BLOCK, &all, NULL);
  struct epoll_event events[EVENTS_MAX];
  for (;;) {
    int count = epoll_wait(epoll, events, EVENTS_MAX, next_timeout());
    for (int i = 0; i < count; i++) {
      on_event(&events[i]);
      if (!atomic_load(&stopping)) continue;
      sweep(true);
      return;
    }
  }
}

int start_answering(void) {
  pthread_mutex_lock(&lifecycle);
  int result = 0;
  if (!running) {
    result = open_all();
    if (result == 0) result = uv_thread_create(&thread, run, NULL);
    running = result == 0;
    if (!running) close_all();
  }
  pthread_mutex_unlock(&lifecycle);
  return result;
}

void stop_answering(void) {
  pthread_mutex_lock(&lifecycle);
  pthread_mutex_lock(&offers_lock);
  bool wanted = any_desk();
  pthread_mutex_unlock(&offers_lock);
  if (running && !wanted) {
    const uint64_t one = 1;
    atomic_store(&stopping, true);
    (void)!write(bell, &one, sizeof one);
    uv_thread_join(&thread);
    atomic_store(&stopping, false);
    close_all();
    running = false;
  }
  pthread_mutex_unlock(&lifecycle);
}

void poke(pid_t pid) {
  struct sockaddr_un address;
  socklen_t length_bytes = name_of(&address, pid, "/in");
  sendto(pokes, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, length_bytes);
}

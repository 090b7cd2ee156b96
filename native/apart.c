// Closes descriptors that strangers passed. close(2) of a file on a FUSE file system waits for that
// file system's daemon, for ever if it likes: Node's thread pool would lose a thread each time, and
// a descriptor that stays open lets the next child process hang between its fork and its exec.
#include "addon.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

// Exported by the node binary; `uv_thread_t` is pthread_t. (glibc 2.34 renamed pthread_create.)
extern int uv_thread_create(pthread_t *thread, void (*entry)(void *data), void *data);
extern int uv_thread_join(pthread_t *thread);

typedef struct closing closing;
struct closing {
  pthread_t thread;
  int fd;
  atomic_bool done;
  closing *next;
};

static closing *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void run(void *data) {
  closing *c = data;
  close(c->fd);
  atomic_store(&c->done, true);
}

/// Frees the threads that have ended.
static void join_ended(void) {
  for (closing **at = &all; *at != NULL;) {
    closing *c = *at;
    if (atomic_load(&c->done)) {
      uv_thread_join(&c->thread);
      *at = c->next;
      free(c);
    } else {
      at = &c->next;
    }
  }
}

/// closeApart(fd): closes it in a thread of its own; 0, or -errno where there is none.
static napi_value call_close_apart(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  closing *c = calloc(1, sizeof *c);
  if (c == NULL) return number(env, -ENOMEM);
  c->fd = (int)integer(env, argument[0]);
  disown_descriptor(env, c->fd);
  pthread_mutex_lock(&lock);
  join_ended();
  int result = uv_thread_create(&c->thread, run, c);
  if (result == 0) {
    c->next = all;
    all = c;
  } else {
    free(c);
  }
  pthread_mutex_unlock(&lock);
  return number(env, result);
}

const export_entry apart_exports[] = {
    {"closeApart", call_close_apart},
    {NULL, NULL},
};

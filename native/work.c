// Calls that may take long (64 MiB of fresh pages: 26 ms), made in Node's thread pool. Each answers
// a promise for the call's result, or -errno.
#include "addon.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <unistd.h>

typedef struct work work;
typedef int64_t (*blocking_call)(work *);

struct work {
  blocking_call call;
  int64_t argument[ARGUMENTS_MAX];
  int64_t result;
  napi_async_work handle;
  napi_deferred deferred;
};

static int64_t failed_or(int64_t result) { return result == -1 ? -errno : result; }

static int64_t do_fallocate(work *w) {
  return failed_or(syscall(SYS_fallocate, (int)w->argument[0], (int)w->argument[1],
                           w->argument[2], w->argument[3]));
}

static int64_t do_fcntl(work *w) {
  return failed_or(syscall(SYS_fcntl, (int)w->argument[0], (int)w->argument[1],
                           (long)w->argument[2]));
}

static int64_t do_madvise(work *w) {
  return failed_or(madvise((void *)(uintptr_t)w->argument[0], (size_t)w->argument[1],
                           (int)w->argument[2]));
}

/// statFd(fd, which): 0 the size in bytes, 1 the allocated bytes, 2 the inode.
/// Through statx(2): glibc before 2.33 has no symbol named fstat.
static int64_t do_stat(work *w) {
  struct statx status;
  if (syscall(SYS_statx, (int)w->argument[0], "", AT_EMPTY_PATH, STATX_BASIC_STATS, &status) != 0)
    return -errno;
  switch (w->argument[1]) {
    case 0: return (int64_t)status.stx_size;
    case 1: return (int64_t)status.stx_blocks * 512;
    default: return (int64_t)status.stx_ino;
  }
}

static void execute(napi_env env, void *data) {
  (void)env;
  work *w = data;
  w->result = w->call(w);
}

static void complete(napi_env env, napi_status status, void *data) {
  work *w = data;
  napi_value result;
  if (status == napi_cancelled) w->result = -ECANCELED;
  if (napi_create_double(env, (double)w->result, &result) == napi_ok)
    napi_resolve_deferred(env, w->deferred, result);
  napi_delete_async_work(env, w->handle);
  free(w);
}

static napi_value queue(napi_env env, napi_callback_info info, blocking_call call) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  work *w = calloc(1, sizeof *w);
  napi_value promise;
  napi_value name;
  if (w == NULL) {
    napi_throw_error(env, "ERR_UKSHM_ADDON", "out of memory");
    return NULL;
  }
  w->call = call;
  for (int i = 0; i < ARGUMENTS_MAX; i++) w->argument[i] = integer(env, argument[i]);
  // Fails in a worker that is being terminated; its descriptors are closed for it then.
  if (napi_create_promise(env, &w->deferred, &promise) != napi_ok ||
      napi_create_string_utf8(env, "ukshm", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, execute, complete, w, &w->handle) != napi_ok) {
    free(w);
    return NULL;
  }
  napi_queue_async_work(env, w->handle);
  return promise;
}

static napi_value call_fallocate(napi_env env, napi_callback_info info) {
  return queue(env, info, do_fallocate);
}
static napi_value call_fcntl_async(napi_env env, napi_callback_info info) {
  return queue(env, info, do_fcntl);
}
static napi_value call_madvise_async(napi_env env, napi_callback_info info) {
  return queue(env, info, do_madvise);
}
static napi_value call_stat_async(napi_env env, napi_callback_info info) {
  return queue(env, info, do_stat);
}

static napi_value call_fallocate_now(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  work w = {0};
  for (int i = 0; i < ARGUMENTS_MAX; i++) w.argument[i] = integer(env, argument[i]);
  return number(env, (double)do_fallocate(&w));
}

static napi_value call_stat(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  work w = {0};
  for (int i = 0; i < ARGUMENTS_MAX; i++) w.argument[i] = integer(env, argument[i]);
  return number(env, (double)do_stat(&w));
}

const export_entry work_exports[] = {
    {"fallocate", call_fallocate_now},
    {"stat", call_stat},
    {"fallocateAsync", call_fallocate},
    {"fcntlAsync", call_fcntl_async},
    {"madviseAsync", call_madvise_async},
    {"statAsync", call_stat_async},
    {NULL, NULL},
};

// Memory: memfd_create(2), fcntl(2), mmap(2) and their kin; ArrayBuffers over mappings.
#include "addon.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Weak: Node 26 and later have it. Without it, shared regions are refused (TypeScript asks first).
__attribute__((weak)) napi_status node_api_create_external_sharedarraybuffer(
    napi_env env, void *external_data, size_t byte_length,
    void (*finalize_cb)(void *external_data, void *finalize_hint), void *finalize_hint,
    napi_value *result);

static napi_value call_memfd_create(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  char name[250] = "";  // the kernel's own limit is 249 bytes
  napi_get_value_string_utf8(env, argument[0], name, sizeof name, NULL);
  // Through syscall(2): glibc 2.26 had no wrapper, and musl's differs.
  int fd = (int)syscall(SYS_memfd_create, name, (unsigned)integer(env, argument[1]));
  int saved = errno;
  own_descriptor(env, fd);
  errno = saved;
  return answer(env, fd);
}

static napi_value call_ftruncate(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return answer(env, ftruncate((int)integer(env, argument[0]), integer(env, argument[1])));
}

static napi_value call_fcntl(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int command = (int)integer(env, argument[1]);
  // Through syscall(2): glibc 2.28 renamed fcntl to fcntl64.
  int result = (int)syscall(SYS_fcntl, (int)integer(env, argument[0]), command,
                            (long)integer(env, argument[2]));
  int saved = errno;
  if (command == F_DUPFD_CLOEXEC) own_descriptor(env, result);
  errno = saved;
  return answer(env, result);
}

static napi_value call_close(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int fd = (int)integer(env, argument[0]);
  disown_descriptor(env, fd);
  return answer(env, close(fd));
}

/// disown(fd): this environment answers for the descriptor no longer.
static napi_value call_disown(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  disown_descriptor(env, (int)integer(env, argument[0]));
  return NULL;
}

static napi_value call_flock(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return answer(env, flock((int)integer(env, argument[0]), (int)integer(env, argument[1])));
}

/// mmap(address, length, protection, flags, fd): an address below 2^53, or -errno.
static napi_value call_mmap(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  void *wanted = (void *)(uintptr_t)integer(env, argument[0]);
  size_t length_bytes = (size_t)integer(env, argument[1]);
  void *mapped = mmap(wanted, length_bytes, (int)integer(env, argument[2]),
                      (int)integer(env, argument[3]), (int)integer(env, argument[4]), 0);
  if (mapped == MAP_FAILED) return number(env, -(double)errno);
  if (wanted == NULL) own_range(env, (uintptr_t)mapped, length_bytes);
  return number(env, (double)(uintptr_t)mapped);
}

static napi_value call_munmap(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  disown_range(env, (uintptr_t)integer(env, argument[0]));
  return answer(env, munmap((void *)(uintptr_t)integer(env, argument[0]),
                            (size_t)integer(env, argument[1])));
}

static napi_value call_madvise(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return answer(env, madvise((void *)(uintptr_t)integer(env, argument[0]),
                             (size_t)integer(env, argument[1]), (int)integer(env, argument[2])));
}

static napi_value call_mlock(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return answer(env, mlock((void *)(uintptr_t)integer(env, argument[0]),
                           (size_t)integer(env, argument[1])));
}

typedef struct {
  uintptr_t address;
  size_t length_bytes;
} reservation;

static void unmap(void *data, void *hint) {
  reservation *range = hint;
  forget_pages((uintptr_t)data);
  forget_mapping(range->address, range->length_bytes);
  munmap((void *)range->address, range->length_bytes);
  free(range);
}

static void finalize_buffer(napi_env env, void *data, void *hint) {
  (void)env;
  unmap(data, hint);
}

/// wrap(address, length, reservation address, reservation length, shared): the one ArrayBuffer (or
/// SharedArrayBuffer) over a mapping. Its finalizer unmaps the whole reservation: not earlier,
/// because an operation of the thread pool that points into it holds the backing store.
static napi_value call_wrap(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  reservation *range = malloc(sizeof *range);
  if (range == NULL) return number(env, -ENOMEM);
  void *data = (void *)(uintptr_t)integer(env, argument[0]);
  size_t length_bytes = (size_t)integer(env, argument[1]);
  *range = (reservation){(uintptr_t)integer(env, argument[2]), (size_t)integer(env, argument[3])};
  bool shared = false;
  napi_get_value_bool(env, argument[4], &shared);
  napi_value result;
  napi_status status;
  if (shared) {
    if (node_api_create_external_sharedarraybuffer == NULL) {
      free(range);
      return number(env, -ENOSYS);
    }
    status = node_api_create_external_sharedarraybuffer(env, data, length_bytes, unmap, range,
                                                        &result);
  } else {
    status = napi_create_external_arraybuffer(env, data, length_bytes, finalize_buffer, range,
                                              &result);
  }
  if (status != napi_ok) {
    free(range);
    return number(env, status == napi_no_external_buffers_allowed ? -EPERM : -ENOMEM);
  }
  disown_range(env, range->address);
  return result;
}

static napi_value call_has_shared(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value result = NULL;
  napi_get_boolean(env, node_api_create_external_sharedarraybuffer != NULL, &result);
  return result;
}

static napi_value call_address_of(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  return number(env, (double)(uintptr_t)view(env, argument[0], &length_bytes));
}

const export_entry memory_exports[] = {
    {"memfdCreate", call_memfd_create},
    {"ftruncate", call_ftruncate},
    {"fcntl", call_fcntl},
    {"close", call_close},
    {"disown", call_disown},
    {"flock", call_flock},
    {"mmap", call_mmap},
    {"munmap", call_munmap},
    {"madvise", call_madvise},
    {"mlock", call_mlock},
    {"wrap", call_wrap},
    {"hasExternalSharedArrayBuffer", call_has_shared},
    {"addressOf", call_address_of},
    {NULL, NULL},
};

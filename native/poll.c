// One epoll descriptor per environment, watched by one uv_poll_t of Node's event loop.
//
// The few libuv functions are declared here: the node binary exports them, their signatures have
// been stable since libuv 1.0, and so the addon needs no libuv header (uv_handle_size tells sizes).
#include "addon.h"

#include <stdlib.h>
#include <sys/epoll.h>

typedef struct uv_poll_s uv_poll_t;
typedef struct uv_handle_s uv_handle_t;
typedef struct uv_loop_s uv_loop_t;
extern size_t uv_handle_size(int type);
extern int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd);
extern int uv_poll_start(uv_poll_t *handle, int events,
                         void (*callback)(uv_poll_t *handle, int status, int events));
extern void uv_close(uv_handle_t *handle, void (*callback)(uv_handle_t *handle));
extern void uv_ref(uv_handle_t *handle);
extern void uv_unref(uv_handle_t *handle);
extern void *uv_handle_get_data(const uv_handle_t *handle);
extern void uv_handle_set_data(uv_handle_t *handle, void *data);
#define UV_POLL 8      // enum uv_handle_type
#define UV_READABLE 1  // enum uv_poll_event

/// Entries of `struct epoll_event` that one call of epollWait hands over at most.
#define EVENTS_MAX 256

typedef struct {
  napi_env env;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  uv_poll_t *handle;
} watcher;

static napi_value call_epoll_create1(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int fd = epoll_create1((int)integer(env, argument[0]));
  int saved = errno;
  own_descriptor(env, fd);
  errno = saved;
  return answer(env, fd);
}

/// epollCtl(epoll, operation, fd, events): the event's data is the descriptor itself.
static napi_value call_epoll_ctl(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int fd = (int)integer(env, argument[2]);
  struct epoll_event event = {.events = (uint32_t)integer(env, argument[3])};
  event.data.fd = fd;
  return answer(env, epoll_ctl((int)integer(env, argument[0]), (int)integer(env, argument[1]), fd,
                               &event));
}

/// epollWait(epoll, words: Int32Array): fills pairs of (descriptor, events); never blocks.
static napi_value call_epoll_wait(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t capacity_bytes;
  int32_t *words = view(env, argument[1], &capacity_bytes);
  struct epoll_event events[EVENTS_MAX];
  int capacity = (int)(capacity_bytes / 8);
  if (capacity > EVENTS_MAX) capacity = EVENTS_MAX;
  int count = epoll_wait((int)integer(env, argument[0]), events, capacity, 0);
  for (int i = 0; i < count; i++) {
    words[i * 2] = events[i].data.fd;
    words[i * 2 + 1] = (int32_t)events[i].events;
  }
  return answer(env, count);
}

static void on_ready(uv_poll_t *handle, int status, int events) {
  (void)status;
  (void)events;
  watcher *w = uv_handle_get_data((uv_handle_t *)handle);
  napi_handle_scope scope;
  napi_value callback;
  napi_value receiver;
  napi_value result;
  if (napi_open_handle_scope(w->env, &scope) != napi_ok) return;
  napi_get_reference_value(w->env, w->callback, &callback);
  napi_get_global(w->env, &receiver);
  bool again = false;
  for (int round = 0; round < 2; round++) {
    // Runs the microtasks and ticks too; an exception that it meets is the program's uncaught one.
    napi_status done =
        napi_make_callback(w->env, w->context, receiver, callback, 0, NULL, &result);
    if (done == napi_pending_exception) {
      napi_value error;
      if (napi_get_and_clear_last_exception(w->env, &error) == napi_ok)
        napi_fatal_exception(w->env, error);
    }
    if (done != napi_ok || napi_get_value_bool(w->env, result, &again) != napi_ok || !again) break;
  }
  napi_close_handle_scope(w->env, scope);
}

static void on_closed(uv_handle_t *handle) {
  watcher *w = uv_handle_get_data(handle);
  napi_async_cleanup_hook_handle cleanup = w->cleanup;
  free(handle);
  free(w);
  napi_remove_async_cleanup_hook(cleanup);
}

/// The environment ends (worker.terminate() included): the loop may not keep our handle.
static void on_cleanup(napi_async_cleanup_hook_handle cleanup, void *data) {
  (void)cleanup;
  watcher *w = data;
  uv_close((uv_handle_t *)w->handle, on_closed);
}

/// watch(epoll, callback): calls back in every turn of the event loop in which epoll has events, and
/// once more, behind all microtasks, where that answered `true`.
/// The answer is an opaque handle for keepAlive; the watch lasts as long as the environment.
static napi_value call_watch(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  uv_loop_t *loop = NULL;
  napi_value name = NULL;
  napi_value result = NULL;  // stays so where a worker is being terminated: napi then makes nothing
  watcher *w = calloc(1, sizeof *w);
  uv_poll_t *handle = calloc(1, uv_handle_size(UV_POLL));
  if (w == NULL || handle == NULL) goto failed;
  w->env = env;
  w->handle = handle;
  napi_create_string_utf8(env, "ukshm", NAPI_AUTO_LENGTH, &name);
  if (napi_get_uv_event_loop(env, (struct uv_loop_s **)&loop) != napi_ok) goto failed;
  if (uv_poll_init(loop, handle, (int)integer(env, argument[0])) != 0) goto failed;
  uv_handle_set_data((uv_handle_t *)handle, w);
  napi_create_reference(env, argument[1], 1, &w->callback);
  napi_async_init(env, NULL, name, &w->context);
  uv_poll_start(handle, UV_READABLE, on_ready);
  uv_unref((uv_handle_t *)handle);
  napi_add_async_cleanup_hook(env, on_cleanup, w, &w->cleanup);
  napi_create_external(env, w, NULL, NULL, &result);
  return result;
failed:
  free(w);
  free(handle);
  return number(env, -ENOMEM);
}

/// keepAlive(watcher, yes): whether the watch keeps the event loop, and so the process, alive.
static napi_value call_keep_alive(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  watcher *w = NULL;
  bool yes = false;
  if (napi_get_value_external(env, argument[0], (void **)&w) != napi_ok) return NULL;
  napi_get_value_bool(env, argument[1], &yes);
  if (yes) {
    uv_ref((uv_handle_t *)w->handle);
  } else {
    uv_unref((uv_handle_t *)w->handle);
  }
  return NULL;
}

const export_entry poll_exports[] = {
    {"epollCreate1", call_epoll_create1},
    {"epollCtl", call_epoll_ctl},
    {"epollWait", call_epoll_wait},
    {"watch", call_watch},
    {"keepAlive", call_keep_alive},
    {NULL, NULL},
};

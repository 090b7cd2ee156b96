// The addon's entry: its instance data (one per main thread or worker) and its exports.
#include "addon.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/// Mappings at a time between mmap(2) and the buffer that answers for them: one, in truth.
#define RANGES_MAX 8

typedef struct {
  uintptr_t address;
  size_t length_bytes;  // 0: the entry is free
} range;

/// What a worker killed at any moment would leave: open descriptors, as a bitmap, and mappings that
/// no buffer's finalizer frees yet.
typedef struct {
  uint8_t *bits;
  size_t capacity_bytes;
  range ranges[RANGES_MAX];
} instance;

void arguments(napi_env env, napi_callback_info info, napi_value out[ARGUMENTS_MAX]) {
  size_t count = ARGUMENTS_MAX;
  napi_get_cb_info(env, info, &count, out, NULL, NULL);
}

int64_t integer(napi_env env, napi_value value) {
  double result = -1;
  if (napi_get_value_double(env, value, &result) != napi_ok) return -1;
  return (int64_t)result;
}

void *view(napi_env env, napi_value value, size_t *length_bytes) {
  void *data = NULL;
  size_t length = 0;
  bool is_view = false;
  *length_bytes = 0;
  napi_is_typedarray(env, value, &is_view);
  if (!is_view) return NULL;
  napi_typedarray_type type;
  napi_get_typedarray_info(env, value, &type, &length, &data, NULL, NULL);
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array: length *= 2; break;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: length *= 4; break;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array: length *= 8; break;
    default: break;
  }
  *length_bytes = length;
  return data;
}

napi_value number(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

napi_value answer(napi_env env, int64_t result) {
  return number(env, result == -1 ? -(double)errno : (double)result);
}

void own_descriptor(napi_env env, int fd) {
  instance *own = NULL;
  if (fd < 0 || napi_get_instance_data(env, (void **)&own) != napi_ok || own == NULL) return;
  size_t byte = (size_t)fd / 8;
  if (byte >= own->capacity_bytes) {
    size_t capacity = byte + 64;
    uint8_t *bits = realloc(own->bits, capacity);
    if (bits == NULL) return;
    memset(bits + own->capacity_bytes, 0, capacity - own->capacity_bytes);
    own->bits = bits;
    own->capacity_bytes = capacity;
  }
  own->bits[byte] |= (uint8_t)(1U << (fd % 8));
}

void disown_descriptor(napi_env env, int fd) {
  instance *own = NULL;
  if (fd < 0 || napi_get_instance_data(env, (void **)&own) != napi_ok || own == NULL) return;
  size_t byte = (size_t)fd / 8;
  if (byte < own->capacity_bytes) own->bits[byte] &= (uint8_t)~(1U << (fd % 8));
}

void own_range(napi_env env, uintptr_t address, size_t length_bytes) {
  instance *own = NULL;
  if (napi_get_instance_data(env, (void **)&own) != napi_ok || own == NULL) return;
  for (size_t i = 0; i < RANGES_MAX; i++) {
    if (own->ranges[i].length_bytes != 0) continue;
    own->ranges[i] = (range){address, length_bytes};
    return;
  }
}

void disown_range(napi_env env, uintptr_t address) {
  instance *own = NULL;
  if (napi_get_instance_data(env, (void **)&own) != napi_ok || own == NULL) return;
  for (size_t i = 0; i < RANGES_MAX; i++) {
    if (own->ranges[i].address == address) own->ranges[i].length_bytes = 0;
  }
}

static void finish_instance(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  instance *own = data;
  for (size_t byte = 0; byte < own->capacity_bytes; byte++) {
    for (int bit = 0; own->bits[byte] != 0 && bit < 8; bit++) {
      if (own->bits[byte] & (1U << bit)) close((int)(byte * 8) + bit);
    }
  }
  for (size_t i = 0; i < RANGES_MAX; i++) {
    if (own->ranges[i].length_bytes == 0) continue;
    forget_mapping(own->ranges[i].address, own->ranges[i].length_bytes);
    munmap((void *)own->ranges[i].address, own->ranges[i].length_bytes);
  }
  free(own->bits);
  free(own);
}

static void export_all(napi_env env, napi_value exports, const export_entry *entries) {
  for (; entries->name != NULL; entries++) {
    napi_value function;
    napi_create_function(env, entries->name, NAPI_AUTO_LENGTH, entries->call, NULL, &function);
    napi_set_named_property(env, exports, entries->name, function);
  }
}

NAPI_MODULE_INIT() {
  instance *own = calloc(1, sizeof *own);
  if (own == NULL || napi_set_instance_data(env, own, finish_instance, NULL) != napi_ok) {
    free(own);
    napi_throw_error(env, "ERR_UKSHM_ADDON", "out of memory while the addon was loaded");
    return exports;
  }
  export_all(env, exports, memory_exports);
  export_all(env, exports, socket_exports);
  export_all(env, exports, process_exports);
  export_all(env, exports, poll_exports);
  export_all(env, exports, fault_exports);
  export_all(env, exports, work_exports);
  export_all(env, exports, apart_exports);
  export_all(env, exports, offers_exports);
  return exports;
}

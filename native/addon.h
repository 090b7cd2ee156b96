// What every file of the addon shares: argument readers, the table of descriptors, registration.
//
// One function a system call, no policy. Arguments are numbers and views that TypeScript has
// checked; results are the call's own, with -errno for a failure, as the kernel itself returns it.
#ifndef UKSHM_ADDON_H
#define UKSHM_ADDON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 8
#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/// The most arguments that any function of the addon takes.
#define ARGUMENTS_MAX 6

/// Reads the call's arguments; missing ones read as `undefined`.
void arguments(napi_env env, napi_callback_info info, napi_value out[ARGUMENTS_MAX]);
/// A JavaScript number as an integer; anything else is -1, which every system call refuses.
int64_t integer(napi_env env, napi_value value);
/// The bytes behind a typed array or DataView, in place; NULL and 0 for anything else.
void *view(napi_env env, napi_value value, size_t *length_bytes);
/// A number for JavaScript: `result`, or -errno where it is -1.
napi_value answer(napi_env env, int64_t result);
/// A number for JavaScript as it is.
napi_value number(napi_env env, double value);

/// Descriptors that this environment opened: what a terminated worker leaves is closed for it.
void own_descriptor(napi_env env, int fd);
void disown_descriptor(napi_env env, int fd);
/// The same for a mapping, until a buffer's finalizer answers for it.
void own_range(napi_env env, uintptr_t address, size_t length_bytes);
void disown_range(napi_env env, uintptr_t address);

typedef struct {
  const char *name;
  napi_callback call;
} export_entry;

/// One table a file, each ended by an entry without a name.
extern const export_entry memory_exports[];
extern const export_entry socket_exports[];
extern const export_entry process_exports[];
extern const export_entry poll_exports[];
extern const export_entry fault_exports[];
extern const export_entry work_exports[];
extern const export_entry apart_exports[];
extern const export_entry offers_exports[];

/// Ends what is offered of the pages that start here; called before they are unmapped.
void forget_pages(uintptr_t address);
/// Forgets what fault.c knows of a range; called before it is unmapped.
void forget_mapping(uintptr_t address, size_t length_bytes);

#endif

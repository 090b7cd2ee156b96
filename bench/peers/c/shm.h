/* Anonymous shared memory between the two programs of a run: the listener makes a memfd and says
 * its path in /proc, the connector opens that. Nothing has a name that could be left behind. */
#ifndef UKSHM_BENCH_SHM_H
#define UKSHM_BENCH_SHM_H
#include "common.h"
#include <fcntl.h>
#include <sys/mman.h>

/* Zeroed pages, all present, shared by both programs. */
static inline void *share(const struct job *job, size_t bytes) {
  int fd = job->listens ? memfd_create("ukshm-bench", MFD_CLOEXEC) : open(job->address, O_RDWR);
  if (fd < 0) die("memfd");
  if (job->listens && (errno = posix_fallocate(fd, 0, (off_t)bytes)) != 0) die("posix_fallocate");
  void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (base == MAP_FAILED) die("mmap");
  if (job->listens) {
    printf("ready /proc/%d/fd/%d\n", getpid(), fd);
    fflush(stdout);
  }
  return base;
}

#endif

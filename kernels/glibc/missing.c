// What glibc 2.31 lacks and headers or static libraries of a newer system ask for.
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

struct stat;
struct stat64;

// From 2.33 on functions of their own; before, headers made them of others. On x86-64 the kernel's struct stat is glibc's.
int fstat(int file, struct stat *status) { return (int)syscall(SYS_fstat, file, status); }
int fstat64(int file, struct stat64 *status) { return (int)syscall(SYS_fstat, file, status); }

/** From 2.36 on. std::random_device may ask for it; the kernels draw their numbers otherwise. */
unsigned arc4random(void) {
  unsigned number = 0;
  while (getentropy(&number, sizeof number) != 0) continue;
  return number;
}

/** From 2.32 on true while a process has one thread. False is right at any time, and a little slower. */
char __libc_single_threaded = 0;

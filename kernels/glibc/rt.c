// Names that a module may ask of librt.so.1; rt.map has their versions in glibc 2.31.
#define STANDS_FOR(name) \
  void name(void) {}
STANDS_FOR(shm_open)
STANDS_FOR(shm_unlink)

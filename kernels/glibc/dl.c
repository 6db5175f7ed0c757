// Names that a module may ask of libdl.so.2; dl.map has their versions in glibc 2.31.
#define STANDS_FOR(name) \
  void name(void) {}
STANDS_FOR(dlclose)
STANDS_FOR(dlerror)
STANDS_FOR(dlmopen)
STANDS_FOR(dlopen)
STANDS_FOR(dlsym)
STANDS_FOR(dlvsym)

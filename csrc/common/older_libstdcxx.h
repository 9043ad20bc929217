// Lets a library that GCC ≥ 11 has compiled run with older C++ and C libraries: GCC 8 and glibc 2.28, as manylinux_2_28 has
// them, and torch's own wheels. Defines what compiled code uses of newer ones, for this library alone. Included by one file of
// each library.
#pragma once
#include <exception>
#include <new>
#include <sstream>

#if defined(__GLIBC__) && defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE >= 11
#include <dlfcn.h>

asm(".hidden _ZSt28__throw_bad_array_new_lengthv\n"
    ".hidden _ZNSt15__exception_ptr13exception_ptr9_M_addrefEv\n"
    ".hidden _ZNSt15__exception_ptr13exception_ptr10_M_releaseEv\n");

// Since glibc 2.34, these are in libc with a version of their own, and the old ones for programs that are linked already.
#if __GLIBC_PREREQ(2, 34) && (defined(__x86_64__) || defined(__aarch64__))
#ifdef __x86_64__
#define OLDEST "@GLIBC_2.2.5"
#else
#define OLDEST "@GLIBC_2.17"
#endif
asm(".symver older_dlopen, dlopen" OLDEST "\n.symver older_dlsym, dlsym" OLDEST "\n.hidden dlopen\n.hidden dlsym\n");
#undef OLDEST
extern "C" {
void* older_dlopen(const char* file, int mode);
void* older_dlsym(void* library, const char* name);
void* dlopen(const char* file, int mode) noexcept { return older_dlopen(file, mode); }
void* dlsym(void* library, const char* name) noexcept { return older_dlsym(library, name); }
}
#endif

static void* in_libstdcxx(const char* name) {
  static void* const library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
  return dlsym(library, name);
}

namespace std {
void __throw_bad_array_new_length() { throw bad_array_new_length(); }

// The copy constructor and the destructor of older headers called the library, which still has them.
namespace __exception_ptr {
void exception_ptr::_M_addref() noexcept {
  void* copy;  // is never destroyed, which leaves one reference more
  reinterpret_cast<void (*)(void*, const void*)>(in_libstdcxx("_ZNSt15__exception_ptr13exception_ptrC1ERKS0_"))(&copy,
                                                                                                                this);
}
void exception_ptr::_M_release() noexcept {
  reinterpret_cast<void (*)(void*)>(in_libstdcxx("_ZNSt15__exception_ptr13exception_ptrD1Ev"))(this);
  _M_exception_object = nullptr;
}
}  // namespace __exception_ptr

template basic_ostringstream<char>::basic_ostringstream();
template basic_stringstream<char>::basic_stringstream();
#if __cplusplus >= 202002L
template string basic_stringbuf<char>::str() const&;
template string basic_stringbuf<char>::str() &&;
#endif
}  // namespace std

extern "C" {
// Of glibc 2.32. Zero: shared pointers always count atomically.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif

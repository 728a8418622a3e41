// libc's own dlsym, behind the one that this library exports.
#pragma once

namespace kvcached::driver {

using DlsymFunction = void* (*)(void* handle, const char* name);

// The next dlsym after ours: libc's, or another interposer's. Null only where libc has none. Any
// thread, at any time, also before constructors have run.
DlsymFunction real_dlsym() noexcept;

// Handle of the loaded library that holds `address`, good for look-ups as long as the library
// stays; null when none does. Sets no error for dlerror().
void* library_of(const void* address) noexcept;

// Whether `address` lies in a loaded library whose file name begins with `name` ("libcuda.so").
bool lies_in(const void* address, const char* name) noexcept;

}  // namespace kvcached::driver

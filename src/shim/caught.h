// How C++ fails to Rust: null, or a message that the caller frees.
#pragma once

#include <c10/util/Exception.h>

#include <cstring>

template <class Body>
static char *caught(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}

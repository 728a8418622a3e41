// Comes after the wrapper in the order of libraries, with a `which` of its own.
extern "C" __attribute__((visibility("default"))) const char* which() { return "bystander"; }

// launch.h for ctypes; with DNASM_HOST also the emulator's knobs.
#include "../../csrc/fftconv/launch.h"
#if defined(DNASM_HOST)
#include "../../csrc/host/shim.cuh"
#endif

extern "C" {
int64_t dnasm_params_bytes() { return sizeof(dnasm::Params); }
int64_t dnasm_plan_length(int64_t length, int precision) { return dnasm::plan_length(length, precision); }
size_t dnasm_spectrum_bytes(const dnasm::Params* p) { return dnasm::spectrum_bytes(*p); }
size_t dnasm_forward_scratch_bytes(const dnasm::Params* p) { return dnasm::forward_scratch_bytes(*p); }
size_t dnasm_backward_scratch_bytes(const dnasm::Params* p) { return dnasm::backward_scratch_bytes(*p); }
const char* dnasm_filter_spectrum(const dnasm::Params* p) { return dnasm::filter_spectrum(*p); }
const char* dnasm_forward(const dnasm::Params* p) { return dnasm::forward(*p); }
const char* dnasm_backward(const dnasm::Params* p) { return dnasm::backward(*p); }
#if defined(DNASM_HOST)
void dnasm_emulator(uint64_t seed, size_t shared_limit) {
  dnasm::host::emulator.random = seed;
  if (shared_limit) dnasm::host::emulator.shared_limit = shared_limit;
}
#endif
}

// short.h for ctypes; with DNASM_HOST also the emulator's seed.
#include "../../csrc/short/short.h"
#if defined(DNASM_HOST)
#include "../../csrc/host/shim.cuh"
#endif

extern "C" {
int64_t dnasm_short_params_bytes() { return sizeof(dnasm::ShortParams); }
size_t dnasm_short_scratch_bytes(const dnasm::ShortParams* p) { return dnasm::short_scratch_bytes(*p); }
const char* dnasm_short_forward(const dnasm::ShortParams* p) { return dnasm::short_forward(*p); }
const char* dnasm_short_backward(const dnasm::ShortParams* p) { return dnasm::short_backward(*p); }
int64_t dnasm_params_bytes() { return sizeof(dnasm::Params); }
size_t dnasm_direct_scratch_bytes(const dnasm::Params* p) { return dnasm::direct_scratch_bytes(*p); }
const char* dnasm_direct_forward(const dnasm::Params* p) { return dnasm::direct_forward(*p); }
const char* dnasm_direct_backward(const dnasm::Params* p) { return dnasm::direct_backward(*p); }
#if defined(DNASM_HOST)
void dnasm_emulator(uint64_t seed) { dnasm::host::emulator.random = seed; }
#endif
}

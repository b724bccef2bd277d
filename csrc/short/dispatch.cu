// The functions of short.h: checks, and the choice among the kernels that are here. Host code only.
#include "short.h"

namespace dnasm {
namespace {

constexpr int kDtypes = 3;
ShortKernels* kernels_of(int dtype) {
  static ShortKernels table[kDtypes] = {};
  return dtype < 0 || dtype >= kDtypes ? nullptr : &table[dtype];
}

const char* check(const ShortParams& p) {
  if (p.batch < 1 || p.channels < 1 || p.length < 1) return "batch, channels and length: at least 1 each";
  if (p.batch * ((p.length + 63) / 64) > 0x7fffffff || p.channels > 0x7fff0000) return "batch * length: more than 2^37";
  if (p.streams != 1 && p.streams != 3) return "streams: 1 or 3";
  if (p.taps < 1 || p.taps > kMostShortTaps) return "weight: 1 to 8 taps";
  if (p.ahead < 0 || p.ahead >= p.taps) return "ahead: below the number of taps";
  if (!has_short(p.dtype)) return "no kernels for this dtype in this build";
  if (!p.x.data || !p.weight) return "x or weight: absent";
  return nullptr;
}

const char* check(const Params& p) {
  if (p.batch < 1 || p.channels < 1 || p.length < 1) return "batch, channels and length: at least 1 each";
  const int64_t taps = p.filter_length < p.length ? p.filter_length : p.length;
  if (taps < 1 || taps > kMostDirectTaps) return "filter: 1 to 1024 taps on a side";
  if (p.length > 0x7fffffff - 8192) return "length: at most 2^31 - 8192";
  if (p.batch * ((p.length + 255) / 256) > 0x7fff0000) return "batch * length: more than 2^39";
  if (p.filter_dtype < 0 || p.filter_dtype > kFloat64) return "filter: float32, float16, bfloat16 or float64";
  if (!has_short(p.dtype) || !kernels_of(p.dtype)->direct_forward) return "no kernels for this dtype in this build";
  if (!p.filter || !p.u.data) return "filter or u: absent";
  return nullptr;
}

}  // namespace

void register_short(int dtype, const ShortKernels& kernels) {
  if (ShortKernels* row = kernels_of(dtype)) *row = kernels;
}

bool has_short(int dtype) {
  const ShortKernels* row = kernels_of(dtype);
  return row && row->forward;
}

size_t short_scratch_bytes(const ShortParams& p) { return check(p) ? 0 : kernels_of(p.dtype)->scratch_bytes(p); }

const char* short_forward(const ShortParams& p) {
  if (const char* text = check(p)) return text;
  if (!p.y.data || (p.streams == 3 && !p.mixed.data)) return "y or mixed: absent";
  return kernels_of(p.dtype)->forward(p);
}

const char* short_backward(const ShortParams& p) {
  if (const char* text = check(p)) return text;
  if (!p.dy.data || (p.streams == 3 && !p.dmixed.data)) return "dy or dmixed: absent";
  if (!p.scratch) return "scratch: no buffer";
  return kernels_of(p.dtype)->backward(p);
}

size_t direct_scratch_bytes(const Params& p) { return check(p) ? 0 : kernels_of(p.dtype)->direct_scratch_bytes(p); }

const char* direct_forward(const Params& p) {
  if (const char* text = check(p)) return text;
  return p.y.data ? kernels_of(p.dtype)->direct_forward(p) : "y: absent";
}

const char* direct_backward(const Params& p) {
  if (const char* text = check(p)) return text;
  if (!p.dy.data || !p.scratch) return "dy or scratch: absent";
  if ((p.din_gate.data && !p.in_gate.data) || (p.dout_gate.data && !p.out_gate.data)) return "a gradient of no gate";
  return kernels_of(p.dtype)->direct_backward(p);
}

}  // namespace dnasm

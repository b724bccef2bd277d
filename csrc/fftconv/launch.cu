// The functions of launch.h: checks, and the choice among the kernels that are here. Host code only.
#include "launch.h"

namespace dnasm {
namespace {

constexpr int64_t kSmallestPlan = 256;
constexpr int kPlans = 9, kDtypes = 3;  // objects of plans of 256 << i; the last tensor-core one serves all longer plans
constexpr int64_t kLongObject = kSmallestPlan << (kPlans - 1), kLongest = 1 << 24;
constexpr int64_t kLongestPacked = 16384;  // in one block on every device

Kernels* kernels_of(int64_t plan, int dtype, int precision) {
  static Kernels table[2][kPlans][kDtypes] = {};
  if (dtype < 0 || dtype >= kDtypes || precision < kFast || precision > kPrecise) return nullptr;
  if (plan > kLongObject) plan = kLongObject;
  for (int i = 0; i < kPlans; ++i)
    if (kSmallestPlan << i == plan) return &table[precision][i][dtype];
  return nullptr;
}

const Kernels* kernels_for(const Params& p) {
  const Kernels* kernels = kernels_of(plan_length(p.length, p.precision), p.dtype, p.precision);
  return kernels && kernels->forward ? kernels : nullptr;
}

const char* check(const Params& p) {
  if (p.batch < 1 || p.channels < 1 || p.length < 1) return "batch, channels and length: at least 1 each";
  if (p.filter_length < 1) return "filter: at least one tap";
  if (p.channels > 1 << 24) return "channels: at most 2^24";
  if (p.dtype < 0 || p.dtype >= kDtypes) return "u: float32, float16 or bfloat16";
  if (p.filter_dtype < 0 || p.filter_dtype > kFloat64) return "filter: float32, float16, bfloat16 or float64";
  if (p.precision != kFast && p.precision != kPrecise) return "precision: fast (0) or float32 (1)";
  if (!plan_length(p.length, p.precision)) return "length: longer than the longest plan";
  if (p.starts && p.precision == kFast && p.length > kLongestPacked) return "packed sequences: longer than one block takes";
  if (p.starts && p.batch > 0x7fffffff) return "packed sequences: more than 2^31 - 1";
  if (!kernels_for(p)) return "no kernels for this length and dtype in this build";
  if (!p.spectrum) return "spectrum: no buffer";
  if (reinterpret_cast<uintptr_t>(p.spectrum) % 64) return "spectrum: not 64-byte aligned";
  if (reinterpret_cast<uintptr_t>(p.scratch) % 64) return "scratch: not 64-byte aligned";
  return nullptr;
}

}  // namespace

void register_kernels(int64_t plan, int dtype, const Kernels& kernels, int precision) {
  if (Kernels* row = kernels_of(plan, dtype, precision)) *row = kernels;
}

bool has_kernels(int64_t plan, int dtype, int precision) {
  const Kernels* row = kernels_of(plan, dtype, precision);
  return row && row->forward;
}

int64_t plan_length(int64_t length, int) {
  for (int64_t plan = kSmallestPlan; plan <= kLongest; plan *= 2)
    if (length <= plan) return plan;
  return 0;
}

size_t spectrum_bytes(const Params& p) {
  const Kernels* kernels = kernels_for(p);
  return kernels ? kernels->spectrum_bytes(p) : 0;
}

size_t forward_scratch_bytes(const Params& p) {
  const Kernels* kernels = kernels_for(p);
  return kernels ? kernels->forward_scratch_bytes(p) : 0;
}

size_t backward_scratch_bytes(const Params& p) {
  const Kernels* kernels = kernels_for(p);
  return kernels ? kernels->backward_scratch_bytes(p) : 0;
}

const char* filter_spectrum(const Params& p) {
  if (const char* text = check(p)) return text;
  return p.filter ? kernels_for(p)->filter_spectrum(p) : "filter: absent";
}

const char* forward(const Params& p) {
  if (const char* text = check(p)) return text;
  if (!p.u.data) return "u: absent";
  if (!p.y.data) return "y: absent";
  return kernels_for(p)->forward(p);
}

const char* backward(const Params& p) {
  if (const char* text = check(p)) return text;
  if (!p.u.data) return "u: absent";
  if (!p.dy.data) return "dy: absent";
  if (p.din_gate.data && !p.in_gate.data) return "din_gate without in_gate";
  if (p.dout_gate.data && !p.out_gate.data) return "dout_gate without out_gate";
  if (!p.scratch) return "scratch: no buffer";
  return kernels_for(p)->backward(p);
}

}  // namespace dnasm

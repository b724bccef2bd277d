// The convolution on a CPU, free of torch, with the operands of fftconv/launch.h.
#pragma once
#include <utility>
#include <vector>

#include "../fftconv/launch.h"
#include "crew.h"

namespace dnasm::cpu {

using Piece = std::pair<int64_t, int64_t>;  // start and end of a packed sequence along the length

struct Group {  // sequences that share a plan
    int64_t plan_length;
    std::vector<int> radices;
    std::vector<Piece> pieces;
};

// The groups say where sequences lie and what their plans are; `length`, `precision`, `starts` and what belongs to them,
// `scratch` and `stream` are not read. Without a `spectrum`, which there can be of one group, each channel's is made on the
// way.
struct Params : dnasm::Params {
    std::vector<Group> groups;
    Crew crew;
};

void forward(const Params& params);
void backward(const Params& params);
// Each channel's spectrum over the plan length, in the plan's order: (channels, plan_length), complex.
void filter_spectrum(const Params& params);
size_t spectrum_bytes(const Params& params);  // 0: more than one group

}  // namespace dnasm::cpu

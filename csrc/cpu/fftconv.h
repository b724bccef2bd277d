// The convolution on a CPU, free of torch: plain pointers and strides.
#pragma once
#include <utility>
#include <vector>

#include "crew.h"
#include "rows.h"

namespace dnasm::cpu {

using Piece = std::pair<int64_t, int64_t>;  // start and end of a packed sequence along the length

struct Group {  // sequences that share a plan
    int64_t plan_length;
    std::vector<int> radices;
    std::vector<Piece> pieces;
};

struct Params {
    int64_t batch, channels, taps;
    bool bidirectional;
    View u, in_gate, out_gate, y;  // forward
    View k;                        // batch stride: between the past's and the future's taps
    View skip;                     // channel stride only
    const float* values = nullptr;  // spectra from `spectrum`, for the one group there then is, or null
    View dy, du, din_gate, dout_gate;  // backward: an absent one is not wanted
    float* dk = nullptr;               // (channels, [2,] taps)
    float* dskip = nullptr;            // (channels)
    std::vector<Group> groups;
    Crew crew;
};

void forward(const Params& params);
void backward(const Params& params);
// Each channel's spectrum over the plan length, of the first group's plan and in its order: (channels, plan_length),
// complex.
void spectrum(const Params& params, float* values);

}  // namespace dnasm::cpu

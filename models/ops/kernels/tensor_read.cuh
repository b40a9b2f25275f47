// READ with its weighted sums by tensor cores: half types as they are stored, floats as tf32. For
// WIDE values.
//
// Scores and softmax are READ's to the bit: in float, a warp per row of the tile. Then the weights
// are rounded to the type of the products and go through shared memory to all warps. For the sums a
// warp has 64 channels and, of the tile, all rows (half of them where a block has but 256
// channels). It adds up, a row of pixels at a time,
//
//     16 channels x 8 pixels  +=  16 channels x 8 or 16 cells  times  8 or 16 cells x 8 pixels
//
// So a value is wanted by one warp of a block, or by two, for all their pixels. It comes straight
// from global memory, 16 bytes a lane and a step ahead of its use: in shared memory it would hardly
// meet a second reader.
//
// In such a product lane 4 g + q has channels g and g + 8, of pixel g the cells that go with q, and
// sums of pixels 2 q and 2 q + 1. Which channel has number g, and which cell goes with q, is ours
// to say: a lane's channels of four products lie together, four and four floats or eight of a half
// type, and so do its cells of a step.
#pragma once

#include "softmax.cuh"

template <class T> struct Rounded { using Type = T; };
template <> struct Rounded<float> { using Type = Tf32; };

template <> struct Plan<TENSOR_READ> : Plan<READ> {
    static constexpr int AT_ONCE = 4;  // there are registers: RESIDENTS is 1
    static constexpr int ABREAST = VALUE_CHANNELS <= 256 ? 4 : 8;  // warps, of 64 channels each
    static constexpr int ROWS = HEIGHT / (WARPS / ABREAST);                 // of the tile, per warp
    static constexpr int BLOCK = 64 * ABREAST;  // large: each block computes all scores
    static constexpr int BLOCKS = quotient(VALUE_CHANNELS, BLOCK);

    using Type = Rounded<VALUE>::Type;
    static constexpr int TAKEN = 8 / sizeof(Type);  // cells of a lane in one step
    static constexpr int STEP = 4 * TAKEN;                                  // cells
    static constexpr int STEPS = quotient(COLUMNS, STEP);                   // of a visit
    static constexpr int AT_FACTORS = AT_WEIGHTS + HEIGHT * STEPS * 32 * 8;
    static constexpr int SHARED = AT_FACTORS + 4 * PIXELS;
    static constexpr int RESIDENTS = 1;
    static_assert(SHARED <= 99 * 1024,
                  "what the smallest of the GPUs that this is built for gives a block");
};

struct TensorRead : Worker<TENSOR_READ> {
    using Sums = float[P::ROWS][4][4];          // a lane's, of four products per row of the tile
    using Operand = unsigned[4];                // a lane's, of the values in one product
    using Held = Vector[4];  // values as they are stored: TAKEN cells, eight channels

    const int eighth = lane / 4, quarter = lane % 4;
    const int first_row = strip / P::ABREAST * P::ROWS;  // of the tile, of this warp's sums

    __device__ TensorRead(const Problem &given) : Worker(given) {}

    // Rows of the tile outside the map are left out: products are dear.
    __device__ bool wants(int tile_row, const Visit &at) const
    {
        return top + tile_row < problem.height && sees(tile_row, at);
    }

    // Weights lie as lanes take them: 8 bytes per row of the tile, step and lane.
    __device__ Four *weights_of(int tile_row, int step) const
    {
        return reinterpret_cast<Four *>(shared + P::AT_WEIGHTS) + (tile_row * P::STEPS + step) * 32;
    }

    __device__ float *factors_of(int tile_row) const
    {
        return reinterpret_cast<float *>(shared + P::AT_FACTORS) + tile_row * 8;
    }

    __device__ void hand_to_all(const float (&weights)[8], float factor) const
    {
        static_assert(KEPT == 1, "a lane has the scores of one cell");
        if (part == 0)
            factors_of(row)[in_group % 8] = factor;
        const int cell = cell_of(0);
        if (cell >= P::STEPS * P::STEP)
            return;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            Four *to = weights_of(row, cell / P::STEP) + 4 * e + cell % P::STEP / P::TAKEN;
            narrow(weights[e], reinterpret_cast<P::Type *>(to)[cell % P::TAKEN]);
        }
    }

    // Half a lane's channels: the first of four.
    __device__ int channel_of(int half) const
    {
        return block * P::BLOCK + strip % P::ABREAST * 64
               + (sizeof(VALUE) == 4 ? 4 * (eighth + 8 * half) : 4 * (2 * eighth + half));
    }

    // Where a step has cells outside the visit or the map, another one stands in:
    // their weights are 0.
    __device__ void take(const Visit &at, int step, Held &to) const
    {
        constexpr int per_cell = 4 / P::TAKEN, last = VALUE_CHANNELS - 16 / int(sizeof(VALUE));
        const VALUE *line = problem.values[at.frame] + cell(at.y, 0) * VALUE_CHANNELS;
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            const int column = step * P::STEP + quarter * P::TAKEN + n / per_cell;
            const int x = max(0, min(at.x + column, min(at.x + at.columns, problem.width) - 1));
            to[n] = *reinterpret_cast<const Vector *>(
                line + (x * VALUE_CHANNELS + min(channel_of(n % per_cell), last)));
        }
    }

    // Of product n: channels 2 n and 2 n + 1 of the lane's eight.
    __device__ static void arrange(const Held &held, int n, Operand &to)
    {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int upper = i % 2, later = i / 2;  // of two rows, of the lane's cells
            if constexpr (sizeof(VALUE) == 4) {
                Tf32 rounded;
                narrow(__uint_as_float(held[2 * later + n / 2].words[n % 2 * 2 + upper]), rounded);
                to[i] = rounded.bits;
            } else {
                const unsigned low = held[2 * later].words[n], high = held[2 * later + 1].words[n];
                to[i] = upper ? low >> 16 | (high & 0xffff0000u) : (low & 0xffffu) | high << 16;
            }
        }
    }

    // The sums of a row of the tile, times the factor of each pixel.
    __device__ void scale(float (&sums)[4][4], int tile_row) const
    {
        const float2 of = reinterpret_cast<const float2 *>(factors_of(tile_row))[quarter];
        if (__any_sync(WARP, of.x != 1 || of.y != 1)) {  // seldom, after some rows of cells
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                sums[n][0] *= of.x, sums[n][2] *= of.x;
                sums[n][1] *= of.y, sums[n][3] *= of.y;
            }
        }
    }

    // held: of the first step.
    __device__ void accumulate(const Visit &at, Held &held, Sums &sums) const
    {
        const int end = end_of(at);
#pragma unroll
        for (int r = 0; r < P::ROWS; ++r)
            if (wants(first_row + r, at))
                scale(sums[r], first_row + r);
#pragma unroll 1
        for (int step = begin_of(at) / P::STEP; step * P::STEP < end; ++step) {
            Operand values[4];
#pragma unroll
            for (int n = 0; n < 4; ++n)
                arrange(held, n, values[n]);
            if ((step + 1) * P::STEP < end)
                take(at, step + 1, held);
#pragma unroll
            for (int r = 0; r < P::ROWS; ++r)
                if (wants(first_row + r, at)) {
                    const Four pair = weights_of(first_row + r, step)[lane];
                    const unsigned weights[2] = {pair.low, pair.high};
#pragma unroll
                    for (int n = 0; n < 4; ++n)
                        multiply_add(P::Type(), sums[r][n], values[n], weights);
                }
        }
    }

    __device__ void write(const Sums &sums) const
    {
        VALUE *result = static_cast<VALUE *>(problem.results[0]);
#pragma unroll
        for (int r = 0; r < P::ROWS; ++r)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int e = i % 2, half = i / 2;  // of the lane's pixels, of its channels
                const int y = top + first_row + r, x = left + 2 * quarter + e,
                          channel = channel_of(half);
                if (y < problem.height && x < problem.width && channel < VALUE_CHANNELS)
                    store(result + cell(y, x) * VALUE_CHANNELS + channel,
                          make_float4(sums[r][2 * half][e], sums[r][2 * half][2 + e],
                                      sums[r][2 * half + 1][e], sums[r][2 * half + 1][2 + e]));
            }
    }

    __device__ void run()
    {
        Sums sums = {};
        // Of the lane's pixel
        Softmax softmax = unvisited(problem, top + row, left + in_group % 8);
        prepare();
        for (int stage = 0; stage < stages;) {
            const bool any = __any_sync(WARP, wants(row, visit_of(stage)));
            float weights[8 * KEPT];
            Held held;
            // At its barrier all are done with the last visit
            score(typename P::Keys(), 0, any, stage, weights);
            const Visit at = visit_of(fresh(stage) - P::STAGES);
            take(at, begin_of(at) / P::STEP, held);
            if (any) {
                const float factor = softmax.grow(*this, at, weights);
                softmax.weigh(weights);
                hand_to_all(weights, factor);
            }
            __syncthreads();
            accumulate(at, held, sums);
        }
        __syncthreads();
        const float inverse = 1 / softmax.sum;
        if (part == 0)
            factors_of(row)[in_group % 8] = inverse;
        __syncthreads();
#pragma unroll
        for (int r = 0; r < P::ROWS; ++r)
            scale(sums[r], first_row + r);
        write(sums);
        if (block == 0 && part == 0 && own_pixel() >= 0)
            problem.softmax[own_pixel()] = make_float2(softmax.largest, inverse);
    }
};

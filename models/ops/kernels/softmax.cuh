// The softmax of a read while its logits come visit by visit; the sum of its weights is in float.
#pragma once

#include "worker.cuh"

// The largest logit and the sum of exponentials of one pixel's softmax so far.
struct Softmax {
    float largest = LOWEST, sum = 0;

    __device__ void add(float logit, float count)
    {
        const float before = largest;
        largest = fmaxf(largest, logit);
        sum = sum * exponential(before - largest) + count * exponential(logit - largest);
    }

    // Of a visit's scores, those that a pixel does not see become -infinity; by the others the
    // largest may grow. -> what sums of earlier visits are to be scaled with, of the lane's pixel,
    // as all that is kept here.
    template <int PASS>
    __device__ float grow(const Worker<PASS> &worker, const Visit &at, float (&scores)[8 * KEPT])
    {
        const bool seen = worker.sees(worker.row, at);
        float most[8], factor = 1;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            most[e] = LOWEST;
#pragma unroll
            for (int i = 0; i < KEPT; ++i) {
                scores[i * 8 + e] = worker.within(i, e, at, seen) ? scores[i * 8 + e]
                                                                  : -__uint_as_float(0x7f800000u);
                most[e] = fmaxf(most[e], scores[i * 8 + e]);
            }
        }
        const float found = fmaxf(joined<LANES>(most, Max()), largest);
        if (__any_sync(WARP, found > largest)) {        // seldom, after some rows
            factor = exponential(largest - found);
            largest = found;
            sum *= factor;
        }
        return factor;
    }

    // Then scores become weights, relative to the largest.
    __device__ void weigh(float (&scores)[8 * KEPT])
    {
        float total[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float base = of_element(largest, e);
            total[e] = 0;
#pragma unroll
            for (int i = 0; i < KEPT; ++i) {
                scores[i * 8 + e] = exponential(scores[i * 8 + e] - base);
                total[e] += scores[i * 8 + e];
            }
        }
        sum += joined<LANES>(total, Sum());
    }
};

// What takes part without being visited: taps outside the map and the constant.
__device__ inline Softmax unvisited(const Problem &problem, int y, int x)
{
    Softmax softmax;
    const int seen_rows = min(y + RADIUS, problem.height - 1) - max(y - RADIUS, 0) + 1;
    const int seen_columns = min(x + RADIUS, problem.width - 1) - max(x - RADIUS, 0) + 1;
    const int outside = WINDOW * WINDOW - seen_rows * seen_columns;
    if (outside > 0)
        softmax.add(0, static_cast<float>(problem.frames) * outside);
    if (problem.constant)
        softmax.add(*problem.constant, 1);
    return softmax;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scenario's twin without faults: what checks.p99AgainstFaultless and
 * checks.originAgainstFaultless hold a run against.
 */
#include <stdlib.h>

#include "scenario.h"

bool scenario_wants_faultless(const struct scenario *scenario)
{
    return scenario->checks.p99_faultless > 0 || scenario->checks.origin_faultless > 0;
}

/* Who joins late is no fault; what the network is always like (loss, jitter) stays as well. */
static void drop_faults(struct scenario *twin)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < twin->fault_count; i++) {
        if (twin->faults[i].kind == FAULT_JOIN)
            twin->faults[kept++] = twin->faults[i];
    }
    twin->fault_count = kept;
    twin->outage_count = 0;
    twin->slow_ppm = 0;
}

int scenario_compare(const struct scenario *scenario, const struct world *world,
                     struct scenario_result *result)
{
    struct scenario *twin = malloc(sizeof *twin);
    struct scenario_result faultless;
    struct world *other = NULL;
    if (twin == NULL)
        return E_NO_MEMORY;
    *twin = *scenario; /* what it points to stays the scenario's */
    drop_faults(twin);
    int err = scenario_run(twin, &other, &faultless);
    if (err == 0) {
        report_compare(&result->report, report_levelled_p99_s(world), &faultless.report,
                       report_levelled_p99_s(other));
        world_free(other);
    }
    free(twin);
    return err;
}

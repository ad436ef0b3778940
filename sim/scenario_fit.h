/* SPDX-License-Identifier: Apache-2.0 */
/* What a loaded scenario names and whether it fits together; shared by sim/scenario_*.c. */
#ifndef SHOAL_SIM_SCENARIO_FIT_H
#define SHOAL_SIM_SCENARIO_FIT_H

#include "scenario.h"

/* Reads manifests and the trace file, fills in what follows from other keys, refuses what does not
 * fit. `place` is the file in errors; NULL: there is none. 0, E_CONFIG, E_NO_MEMORY. */
MUST_USE int scenario_fit(struct scenario *scenario, const char *place,
                          struct scenario_error *error);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The ACR instances of the configuration on the agent's loop: timer, wall clock and files for
 * acr.h, and the settings in its terms. */
#ifndef SHOAL_DAEMON_ACR_PART_H
#define SHOAL_DAEMON_ACR_PART_H

#include "acr.h"
#include "config.h"
#include "loop.h"

struct acr_part;
/* Starts to look for the instances; *out is NULL if none are configured. Registers with the loop
 * for an orderly stop. All is borrowed for the object's life. 0, E_NO_MEMORY, E_INTERNAL,
 * E_TOO_LARGE. */
MUST_USE int acr_part_new(struct loop *loop, const struct config *config,
                          const struct fetch_engine *engine, struct acr_part **out);
/* NULL for NULL. */
struct acr *acr_part_acr(const struct acr_part *part);
/* After the loop has run out. NULL is fine. */
void acr_part_free(struct acr_part *part);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the registry module: what counts as having no credentials.
 */
#ifndef SHOAL_REGISTRY_GRANTS_H
#define SHOAL_REGISTRY_GRANTS_H

#include <stdbool.h>

/* NULL, "", and Basic with an empty user and password ("Basic Og=="), which containers/image sends
 * for want of a login (CLIENTS §7). */
bool grants__no_credentials(const char *authorization);

#endif

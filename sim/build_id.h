/* SPDX-License-Identifier: Apache-2.0 */
/* Which source this program was built from: a seed replays on the same source only. */
#ifndef SHOAL_SIM_BUILD_ID_H
#define SHOAL_SIM_BUILD_ID_H

/* Release and commit as `git describe` tells them ("0.1.0-g6c194ec", "-dirty" behind it when files
 * differed from the commit); the release alone when it was built outside a repository. */
const char *build_id(void);

#endif

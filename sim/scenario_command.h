/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal-sim run`. */
#ifndef SHOAL_SIM_SCENARIO_COMMAND_H
#define SHOAL_SIM_SCENARIO_COMMAND_H

/* argv[1] is "run". Returns the exit code: 0 every pull ended well, 1 not, 2 usage. */
int scenario_command(int argc, char **argv);

#endif

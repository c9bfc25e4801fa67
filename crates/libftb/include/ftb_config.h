/* What programs of FTB ask at compile time. The ports mean nothing here: the agent listens at a Unix socket. */
#ifndef FTB_CONFIG_H
#define FTB_CONFIG_H

#define FTB_VERSION "0.6.2"
#define FTB_NUMVERSION 602
#define FTB_AGENT_PORT 10809
#define FTB_BSTRAP_PORT 14455

#endif

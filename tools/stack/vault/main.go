// A Vault server for tests and for one's own use, built from its Go module where no container or package is to be had.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }

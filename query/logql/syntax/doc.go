// Package syntax reads and writes LogQL: queries become trees, mistakes become errors with their position.
//
//	e, err := syntax.Parse(`sum by (app) (rate({env="prod"} |= "timeout" | json | status >= 500 [5m]))`)
//	text := syntax.Format(e) // in several lines; e.String() is the same in one
//
// A tree holds what was written, checked: regular expressions, templates, patterns, paths and addresses are valid, and
// operators fit what they are applied to. It does not execute anything.
package syntax

// Package syntax is TraceQL as a language: its lexer, its parser, what a query looks like when it is parsed, and the
// checks that a parsed query means something.
//
//	q, err := syntax.Parse(`{ resource.service.name = "shop" && status = error } | by(name) | count() > 2`)
//	err = syntax.Check(q)
//
// What a node prints with String parses to the same node.
package syntax

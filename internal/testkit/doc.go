// Package testkit is what tests of several packages share: a store that is too simple to be wrong (Store, the
// oracle of the engine's tests and the fake behind those of the read APIs), generators of realistic requests
// that are a function of their seed (Gen), and readers that turn everything a view holds into text, so that two
// stores can be compared (Dump).
//
// A test of an engine writes the same requests to both and compares:
//
//	g := testkit.NewGen(seed, testkit.Options{})
//	req := g.Request(100)
//	_, _, err = oracle.Write(ctx, testkit.Clone(req))
//	_, _, err = engine.Write(ctx, req)
//	require.Equal(t, testkit.Dump(t, oracle, tenant), testkit.Dump(t, engine, tenant))
//
// A crash test numbers its records and looks for the numbers that were acknowledged:
//
//	g := testkit.NewGen(seed, testkit.Options{Numbered: true})
//	first := g.Next()
//	req := g.Request(10) // holds the numbers first to g.Next()-1
//	found, err := testkit.Numbers(ctx, view, tenant)
package testkit

package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// The standard router drops what no handler's filter matches; this one tells of it.
type router struct {
	*paho.StandardRouter
	rest   paho.MessageHandler
	routed bool
}

func (r *router) Route(packet *packets.Publish) {
	r.routed = false
	r.StandardRouter.Route(packet)
	if !r.routed {
		r.rest(paho.PublishFromPacketPublish(packet))
	}
}

func connect5(address string, router paho.Router, packet *paho.Connect) *paho.Client {
	connection, err := net.Dial("tcp", address)
	check(err)
	client := paho.NewClient(paho.ClientConfig{Conn: connection, Router: router, OnClientError: broken})
	packet.CleanStart, packet.KeepAlive = true, 60
	_, err = client.Connect(context.Background(), packet)
	check(err)
	return client
}

func publish5(address, name string, messages []message) {
	client := connect5(address, paho.NewStandardRouter(), &paho.Connect{
		ClientID: name, UsernameFlag: true, Username: "sender", PasswordFlag: true, Password: []byte("sesame"),
	})
	for _, m := range messages {
		_, err := client.Publish(context.Background(), &paho.Publish{
			QoS: m.qos, Retain: m.retain, Topic: m.topic, Payload: m.payload,
		})
		check(err)
	}
	leave(client)
}

func subscribe5(address string, r reading) {
	left, done := r.count, make(chan struct{})
	handler := func(by string) paho.MessageHandler {
		return func(m *paho.Publish) {
			got(by, message{m.QoS, m.Retain, m.Payload, m.Topic}, &left, done)
		}
	}
	router := &router{StandardRouter: paho.NewStandardRouter(), rest: handler("any")}
	if r.route != "" {
		router.RegisterHandler(r.route, func(m *paho.Publish) {
			router.routed = true
			handler("route")(m)
		})
	}
	client := connect5(address, router, &paho.Connect{})
	packet := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: r.filter, QoS: r.qos}}}
	if r.since != "" {
		packet.Properties = &paho.SubscribeProperties{User: paho.UserProperties{{Key: "since", Value: r.since}}}
	}
	answer, err := client.Subscribe(context.Background(), packet)
	check(err)
	fmt.Println("ready", answer.Reasons[0])
	<-done
	leave(client)
}

// Set before this side ends the connection: the client then tells of the end as of an error.
var leaving atomic.Bool

func leave(client *paho.Client) {
	leaving.Store(true)
	check(client.Disconnect(&paho.Disconnect{}))
}

func broken(err error) {
	if !leaving.Load() {
		check(err)
	}
}
